"""What a request and a streamed token cost in the gateway, beside the proxies that others put there."""
