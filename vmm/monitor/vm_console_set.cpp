// SPDX-License-Identifier: MIT
#include "vmm/monitor/vm_console_set.hpp"

#include <new>

namespace hv {

Expected<std::unique_ptr<VmConsoleSet>> VmConsoleSet::create(ConsoleMux& mux, const config::Config& config) {
    std::unique_ptr<VmConsoleSet> set{new (std::nothrow) VmConsoleSet};
    if (set == nullptr)
        return Unexpected{Error::no_memory};
    HV_TRY(set->consoles_.reserve(config.vms.size()));
    for (const config::VmConfig& vm : config.vms)
        HV_TRY(set->consoles_.push(HV_TRY(VmConsole::create(mux, vm.name))));
    return set;
}

Expected<Vm::Consoles> VmConsoleSet::open(std::size_t index, std::string_view) {
    VmConsole& console = *consoles_[index];
    return Vm::Consoles{console.serial(), console.debug()};
}

}  // namespace hv
