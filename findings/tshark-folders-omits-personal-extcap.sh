#!/bin/bash
# `tshark -G folders` names the global extcap folder alone, and yet tshark runs the programs of the personal one.
#
# Seen with Debian 12's tshark 4.0.17-0+deb12u3.
# Behaviour: the report has one line "Extcap path:" with the folder below /usr. A program in ~/.config/wireshark/extcap
#   is started by `tshark -D` all the same, and its interfaces are listed.
# Output seen:
#   folders named: 1, personal ones among them: 0
#   an interface of the personal folder: listed
# Consequence: an installer that asks for the folder of the user gets that of the system, which takes root. Write to
#   ~/.config/wireshark/extcap if the report names no folder below the home.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
command -v tshark > /dev/null || { echo "tshark is not installed"; exit 77; }

HOME=$(mktemp -d)
export HOME
unset XDG_CONFIG_HOME
trap 'rm -rf "$HOME"' EXIT
mkdir -p "$HOME/.config/wireshark/extcap"
cat > "$HOME/.config/wireshark/extcap/example" << 'END'
#!/bin/sh
case "$*" in
*--extcap-interfaces*) echo "extcap {version=1.0}"; echo "interface {value=example0}{display=An example}" ;;
*--extcap-dlts*) echo "dlt {number=101}{name=RAW}{display=Raw IP}" ;;
esac
END
chmod +x "$HOME/.config/wireshark/extcap/example"

folders=$(tshark -G folders 2> /dev/null | grep -i '^extcap path' || true)
personal=$(grep -c "$HOME" <<< "$folders" || true)
listed=no
tshark -D 2> /dev/null | grep -q "example0" && listed=yes
echo "folders named: $(grep -c . <<< "$folders"), personal ones among them: $personal"
echo "an interface of the personal folder: $([ $listed = yes ] && echo listed || echo not listed)"
[ "$personal" = 0 ] && [ $listed = yes ]
