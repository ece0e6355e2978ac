// SPDX-License-Identifier: MIT
// The files that came with the hypervisor, by name: each boot module is one, and a module that is a ustar
// archive is as many as it holds. Bytes stay where the boot loader put them.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <cstddef>
#include <span>
#include <string_view>

namespace hv::loader {

class ModuleFiles {
public:
    struct File {
        [[nodiscard]] std::string_view name() const { return {name_text.begin(), name_text.size()}; }
        Vec<char> name_text;
        std::span<const std::byte> bytes;
    };

    /// Adds a boot module; `bytes` must outlive this. It is expanded if it is a ustar archive and its name
    /// ends in ".tar" or is empty (QEMU gives a module no name). A name that is taken already is skipped with
    /// a log line. Error::no_memory: some of it may have been added.
    Expected<void> add(std::string_view name, std::span<const std::byte> bytes);
    /// The file that a configuration calls `path`: the one of that very name, else one whose name is the
    /// path's last component (boot loaders tend to drop the folder). nullptr: there is none.
    [[nodiscard]] const File* find(std::string_view path) const;
    [[nodiscard]] std::span<const File> files() const { return files_.span(); }

private:
    Expected<void> add_file(std::string_view name, std::span<const std::byte> bytes);

    Vec<File> files_;
};

}  // namespace hv::loader
