"""Laws that every implementation of a protocol of modalign must obey, as test classes to subclass."""
