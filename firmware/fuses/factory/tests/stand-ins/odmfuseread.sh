#!/bin/sh
# Stands in for NVIDIA's: says what the false board beside it holds. With a signed board it asks for the key, as the real one.
set -eu
echo "odmfuseread.sh $*" >>calls
case " $* " in
    *" -k "*) ;;
    *) if grep -q '^SecurityMode: 00000001' board.txt; then echo "Error: the boot ROM wants a signature" >&2; exit 3; fi ;;
esac
cat board.txt
