"""Where documents come from: the embedded corpus, local files, any dataset of the Hugging Face hub."""

from tinydata.corpus.embedded import EmbeddedCorpus
from tinydata.sources.files import Files
from tinydata.sources.hub import Hub

__all__ = ["EmbeddedCorpus", "Files", "Hub"]
