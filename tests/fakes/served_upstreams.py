"""Upstreams and deployments in memory, for what only reads them."""

from penstock.contract.snapshot import Deployment, Upstream


class ServedUpstreams:
    """What is served."""

    def __init__(self, *upstreams: Upstream, models: tuple[str, ...] = ()) -> None:
        """Serve these upstreams, with a deployment of each model on each."""
        self.version = 1
        self.upstreams = list(upstreams)
        self.deployments = [
            Deployment("d", upstream.name, name) for upstream in upstreams for name in models
        ]

    def list_upstreams(self) -> list[Upstream]:
        """Return the upstreams."""
        return self.upstreams

    def list_deployments(self) -> list[Deployment]:
        """Return the deployments."""
        return self.deployments
