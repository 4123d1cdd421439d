"""Where a checkpoint comes from."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from; written into `recbert.json`, `recipe.yaml` and the model card.

    Attributes:
        protocol: how the data was split and the metrics are obtained, in words.
        data_fingerprint: hash of the prepared data.
        recipe: the resolved recipe as YAML.
    """

    protocol: str = ""
    data_fingerprint: str = ""
    recipe: str = ""
