"""Where a checkpoint comes from."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What a checkpoint has from the one that its training started from.

    Attributes:
        generation: of the vocabulary, as in `CheckpointInfo`.
        own_items: for an adapter, how many items it brings that its base does not have.
        deny_list: item ids that are never recommended.
    """

    generation: int = 1
    own_items: int = 0
    deny_list: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from; written into `recbert.json`, `recipe.yaml` and the model card.

    Attributes:
        protocol: how the data was split and the metrics are obtained, in words.
        data_fingerprint: hash of the prepared data.
        recipe: the resolved recipe as YAML.
        lineage: what it has from the checkpoint before.
    """

    protocol: str = ""
    data_fingerprint: str = ""
    recipe: str = ""
    lineage: Lineage = dataclasses.field(default_factory=Lineage)
