#!/usr/bin/env python3
# Stands in for NVIDIA's: the hash of a public key as its documents describe it, written by itself, not by our program.
import hashlib, sys
assert sys.argv[1] == "--pubkeyhash" and sys.argv[4] == "rsa", sys.argv
modulus = bytes.fromhex(open(sys.argv[2]).read().strip().removeprefix("Modulus="))
digest = hashlib.sha512(modulus[::-1]).hexdigest()
open(sys.argv[3], "w").write(digest)
print("tegra-fuse format (big-endian): 0x" + digest)
