"""The service that makes adapters for programs without privilege: policy, requests, server and client."""
