"""A bank: accounts, transfers between them, receipts, fraud alerts, and the service that offers them over HTTP."""
