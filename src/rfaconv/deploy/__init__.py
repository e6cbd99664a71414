"""Models for other runtimes: layers in folded, four-dimensional form, and files checked by running them."""

from rfaconv.deploy.export import Exported, export
from rfaconv.deploy.modules import deployed

__all__ = ["Exported", "deployed", "export"]
