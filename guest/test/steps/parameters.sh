# SPDX-License-Identifier: MIT
# More words of the kernel command line, for the tests' own roles.

# parameter NAME DEFAULT: prints the value of `test.NAME=`, which has no blanks, or DEFAULT.
parameter() {
    read -r words </proc/cmdline
    for word in $words; do
        case $word in
        "test.$1="*)
            echo "${word#*=}"
            return
            ;;
        esac
    done
    echo "$2"
}
