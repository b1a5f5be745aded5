"""The programs that are measured, a process each; the harness starts them and talks to them by lines of text.

A forwarder is called with a role and the process ids that hold the left and the right network. It makes
the TUN interfaces `left` and `right`, says "made", waits for a line, and then forwards until it is killed.
The line comes when both interfaces are where they belong and up.
"""
