"""The knowledge that is there without a cluster: the packaged profile and the user's own."""

from falcon_ray.knowledge.profile.files import default_location, packaged_profile, read_profile
from falcon_ray.knowledge.profile.profile import Profile


def known_profile(
    store: str | None, packaged: Profile | None = None, *, missing_ok: bool = False
) -> Profile:
    """The packaged profile with the user's own on top.

    Args:
        store: Where the user's own is; None takes the default location, where there may be none.
        packaged: In place of what comes with falcon_ray.
        missing_ok: Whether there may be none at a location that was named, as it is new.

    Raises:
        InputError: The location that was named holds no profile and should, or one that cannot be
            read.
    """
    shipped = packaged_profile() if packaged is None else packaged
    if store is None:
        return shipped.merged(read_profile(default_location(), missing_ok=True))
    return shipped.merged(read_profile(store, missing_ok=missing_ok))


def describe_sources(profile: Profile) -> tuple[str, ...]:
    """Every source of a profile in one line."""
    return tuple(
        f"{key}: {source.description} ({source.licence}, {source.date})"
        for key, source in sorted(profile.sources.items())
    )
