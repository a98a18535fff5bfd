"""The words of the page: of faces, and of other pictures. The paper's names stand in footnotes alone."""

from __future__ import annotations

from typing import NamedTuple

from dist_dsvae.pretrained.model import PretrainedModel


class Words(NamedTuple):
    """what, how: of the two codes of a picture, zs and zu. one, many: what the classes are."""

    what: str
    how: str
    one: str
    many: str

    @property
    def footnote(self) -> str:
        """What the words are called where the method is described."""
        return (
            f"“{self.what.capitalize()}” is the code zs, which the names of the {self.many} speak of; "
            f"“{self.how}” is the code zu: all else."
        )


def words_for(model: PretrainedModel) -> Words:
    """Those of people, for a model of faces; of things, for any other."""
    if model.published.face_crops is not None:
        return Words("who it is", "how it looks", "person", "people")
    return Words("what it is", "how it looks", "class", "classes")
