"""ldbench completion SHELL: prints the script that completes commands, config groups, options and keys.

Candidates after a command are Hydra's own [0], for the line without `ldbench COMMAND`.

[0] Hydra, Tab completion, https://hydra.cc/docs/tutorials/basic/running_your_app/tab_completion/
"""

import sys

INSTALL = {  # what makes a shell complete from now on
    "bash": "echo 'eval \"$(ldbench completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(ldbench completion zsh)\"' >> ~/.zshrc   (after compinit)",
    "fish": "ldbench completion fish > ~/.config/fish/completions/ldbench.fish",
}

BASH = """\
_ldbench() {
    local line="${COMP_LINE:0:COMP_POINT}" words current found
    read -ra words <<<"$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    if ((${#words[@]} <= 2)); then
        found="@COMMANDS@"
    elif [[ "${words[1]}" == completion ]]; then
        found="bash zsh fish"
    elif [[ "${words[1]}" == new ]]; then
        found="@KINDS@"
    else
        found="$(COMP_LINE="ldbench ${words[*]:2}" ldbench "${words[1]}" -sc query=bash 2>/dev/null)"
    fi
    COMPREPLY=($(compgen -W "$found" -- "$current"))
    if [[ "$current" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%%=*}="}")  # bash replaces what stands after the last word break
    fi
    if [[ "${COMPREPLY[*]}" == *[=./] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _ldbench ldbench
"""
ZSH = """\
#compdef ldbench
_ldbench() {
    local -a found
    if ((CURRENT == 2)); then
        found=(@COMMANDS@)
    elif [[ "$words[2]" == completion ]]; then
        found=(bash zsh fish)
    elif [[ "$words[2]" == new ]]; then
        found=(@KINDS@)
    else
        found=(${(z)"$(COMP_LINE="ldbench ${words[3,CURRENT]}" ldbench "$words[2]" -sc query=bash 2>/dev/null)"})
    fi
    local -a open=(${(M)found:#*[=./]}) whole=(${found:#*[=./]})
    compadd -S '' -a open
    compadd -a whole
}
compdef _ldbench ldbench
"""
FISH = """\
function __ldbench_complete
    set -l words (commandline -cpo)
    set -l current (commandline -ct)
    if test (count $words) -eq 1
        string split " " -- "@COMMANDS@"
    else if test "$words[2]" = completion
        string split " " -- "bash zsh fish"
    else if test "$words[2]" = new
        string split " " -- "@KINDS@"
    else
        set -lx COMP_LINE "ldbench $words[3..-1] $current"
        ldbench $words[2] -sc query=fish 2>/dev/null
    end
end
complete -c ldbench -f -a "(__ldbench_complete)"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion_script(shell: str) -> str:
    """The script that a shell evaluates. Raises ValueError for a shell without one."""
    from ldbench.__main__ import COMMANDS
    from ldbench.new import KINDS

    if shell not in SCRIPTS:
        raise ValueError(f"There is no completion for {shell!r}. Choose one of {', '.join(SCRIPTS)}.")
    script = SCRIPTS[shell].replace("@COMMANDS@", " ".join([*COMMANDS, "--help", "--version"]))
    return script.replace("@KINDS@", " ".join(f"{kind}=" for kind in KINDS))


def main() -> None:
    """Runs the command line."""
    arguments = sys.argv[1:]
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        lines = [f"usage: ldbench completion {{{'|'.join(SCRIPTS)}}}", "", "Once, for all shells that open later:"]
        sys.stdout.write("\n".join([*lines, *(f"  {shell:6}{command}" for shell, command in INSTALL.items()), ""]))
        sys.exit(0 if arguments else 2)
    try:
        sys.stdout.write(completion_script(arguments[0]))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
