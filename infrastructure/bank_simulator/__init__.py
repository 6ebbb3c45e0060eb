"""Our banking partner, simulated: another company that we reach only over HTTP.

It imports nothing of ours and nothing of ours imports it, save the command that starts it. Its
manners, the bad ones included, are those of the partner's service, so that what survives the
simulator survives the partner.
"""
