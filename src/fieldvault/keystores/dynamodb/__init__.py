"""A key store in a table of DynamoDB; needs ``fieldvault[aws]``."""

from fieldvault.keystores.dynamodb.store import DynamoDBKeyStore

__all__ = ["DynamoDBKeyStore"]
