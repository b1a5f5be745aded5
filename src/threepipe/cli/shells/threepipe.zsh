#compdef threepipe
# Completion of threepipe for zsh. Printed by: threepipe completion zsh

_threepipe() {
    local line="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" answer value shown
    local -a closed closed_shown open open_shown
    answer=$(_THREEPIPE_COMPLETE="$line" ${~words[1]} 2>/dev/null)
    case $? in
        0) ;;
        3) compset -P '*[:=]'; _files; return ;; # The names of files.
        *) return 1 ;;
    esac
    [[ $PREFIX == --*=* ]] && compset -P '*='
    for line in ${(f)answer}; do
        value="${line%%$'\t'*}"
        shown="${line/$'\t'/  -- }"
        if [[ $value == *[:=] ]]; then
            open+=("$value") open_shown+=("$shown")
        else
            closed+=("$value") closed_shown+=("$shown")
        fi
    done
    compadd -l -d closed_shown -a closed
    compadd -l -S '' -d open_shown -a open
    (( $#closed + $#open ))
}

if [[ $funcstack[1] == _threepipe ]]; then
    _threepipe "$@"
else
    compdef _threepipe threepipe
fi
