"""Tools for testing agents and models, shipped with the product.

`contracts` checks that a back end keeps the promises of its port. `world` plays whole calls in
virtual time. `calling` calls a running agent by telephone, as Twilio would. The scripted models that
go with them are in `antiphon.models.scripted`.
"""
