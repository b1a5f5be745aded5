# Completion of threepipe for fish. Printed by: threepipe completion fish

function __threepipe_complete
    set -l line (commandline -cp)
    set -l program (commandline -opc)[1]
    set -l answer (env _THREEPIPE_COMPLETE="$line" $program 2>/dev/null)
    switch $status
        case 0
            printf '%s\n' $answer
        case 3 # The names of files.
            set -l word (commandline -ct)
            set -l before (string match -r '^.*[:=]' -- $word)
            set -l path (string replace -r '^.*[:=]' '' -- $word)
            printf '%s\n' $before(__fish_complete_path $path)
    end
end

complete -c threepipe -f -a '(__threepipe_complete)'
