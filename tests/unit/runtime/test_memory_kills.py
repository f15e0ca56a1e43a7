from falcon_ray.runtime.memory_kills import read_counter

VMSTAT = """\
nr_free_pages 123
oom_kill_unrelated 9
oom_kill 4
numa_pte_updates 0
"""


def test_the_counter_is_read_by_its_whole_name() -> None:
    assert read_counter(VMSTAT) == 4


def test_a_system_that_does_not_count_says_none() -> None:
    assert read_counter("nr_free_pages 123\n") == 0
    assert read_counter("") == 0
