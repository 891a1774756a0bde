"""A key store in a table of DynamoDB; needs ``fieldvault[dynamodb]``."""

from fieldvault.keystores.dynamodb.store import DynamoDBKeyStore

__all__ = ["DynamoDBKeyStore"]
