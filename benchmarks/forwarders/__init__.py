"""The forwarders: programs that are measured, each in a process that the harness controls by lines of text.

A forwarder is called with a role and the process ids that hold the left and the right network. It makes the TUN
interfaces `left` and `right`, prints "made", waits for a line, and then forwards until it is killed. The line comes
when both interfaces are up and in their networks. `--against` runs forwarders of other commits, so keep this protocol.
"""
