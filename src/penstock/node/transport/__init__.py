"""How usage gets from a node to its control plane, behind `node.delivery.Store`.

HTTP is what every node has (`node.delivery.ControlPlane`). A broker may stand in for it where there
are many nodes: `broker.BrokerStore` over NATS or Kafka. Whatever carries a batch, it is delivered
when the control plane says that it is stored, and not before.
"""
