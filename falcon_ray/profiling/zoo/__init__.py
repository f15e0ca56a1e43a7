"""Reference models in plain torch with random weights; `registry` lists them without torch.

A new family is one module with a factory `family(seed)` and its sibling
`family_inputs(batch_size, seed)`, and one row in `registry.REFERENCE_MODELS`.
"""
