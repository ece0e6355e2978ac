// SPDX-License-Identifier: MIT
#include "boot/main/command_line.hpp"

namespace hv::boot {

Options parse_command_line(std::string_view text) {
    constexpr std::string_view kConfig = "config=";
    Options options;
    while (!text.empty()) {
        const std::size_t end = text.find(' ');
        const std::string_view word = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (word == "headless")
            options.headless = true;
        else if (word == "console=e9")
            options.debug_console = true;
        else if (word == "console=com1")
            options.debug_console = false;
        else if (word == "apicv=on")
            options.apicv = Options::Apicv::on;
        else if (word == "apicv=tpr")
            options.apicv = Options::Apicv::tpr;
        else if (word == "apicv=off")
            options.apicv = Options::Apicv::off;
        else if (word.starts_with(kConfig))
            options.config = word.substr(kConfig.size());
        // A path in front of the words is the image's own name, as GRUB and QEMU pass it.
        else if (!word.empty() && word.find('/') == std::string_view::npos && options.unknown.empty())
            options.unknown = word;
    }
    return options;
}

}  // namespace hv::boot
