# Completion of threepipe for bash, 4.4 and newer. Printed by: threepipe completion bash

_threepipe() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" answer value breaks="" cut=""
    COMPREPLY=()
    answer=$(_THREEPIPE_COMPLETE="$line" "${1/#\~/$HOME}" 2>/dev/null)
    case $? in
        0) ;;
        3) compopt -o bashdefault -o default; return ;; # The names of files.
        *) return ;;
    esac
    # Readline treats the part of a word after a colon or an equals sign as a word of its own.
    local word="${line##*[[:space:]]}"
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    if [[ $breaks && $word == *[$breaks]* && $word != [\"\']* ]]; then
        cut="${word%"${word##*[$breaks]}"}"
    fi
    for value in $answer; do
        value="${value%%$'\t'*}"
        value="${value#"$cut"}"
        # Names of adapters may have characters that are special to bash.
        [[ $value == *[^A-Za-z0-9_.,:=/@%+-]* ]] && printf -v value %q "$value"
        COMPREPLY+=("$value")
    done
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace
    return 0
}

complete -F _threepipe threepipe
