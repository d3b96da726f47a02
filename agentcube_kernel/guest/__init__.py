"""What runs inside the sandbox: a supervisor that talks to the relay, and a worker that runs the cells on IPython.

Shipped as source and imported under another name, so everything in here imports the standard library, IPython and its
own neighbours only, and only relatively.
"""
