// SPDX-License-Identifier: MIT
#include "vmm/monitor/vm_directory.hpp"

#include "vmm/config/config.hpp"

namespace hv {

std::string_view VmDirectory::name(std::size_t index) const {
    return config(index).name;
}

std::optional<std::size_t> VmDirectory::find(std::string_view name) const {
    for (std::size_t index = 0; index < size(); ++index) {
        if (this->name(index) == name)
            return index;
    }
    return std::nullopt;
}

}  // namespace hv
