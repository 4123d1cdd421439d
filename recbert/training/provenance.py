"""Where a checkpoint comes from."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from; written into `recbert.json`, `recipe.yaml` and the model card.

    Attributes:
        protocol: how the data was split and the metrics are obtained, in words.
        data_fingerprint: hash of the prepared data.
        recipe: the resolved recipe as YAML.
        own_items: for an adapter, how many items it brings that its base does not have.
    """

    protocol: str = ""
    data_fingerprint: str = ""
    recipe: str = ""
    own_items: int = 0
