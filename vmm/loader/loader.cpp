// SPDX-License-Identifier: MIT
#include "vmm/loader/loader.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/loader/elf_image.hpp"
#include "vmm/loader/protocols.hpp"
#include "vmm/loader/refuse.hpp"

#include <cstdarg>

namespace hv::loader {

Unexpected refuse(const LoadRequest& request, Error error, const char* format, ...) {
    char buffer[160];
    std::va_list arguments;
    va_start(arguments, format);
    const std::string_view reason = format_into(buffer, format, arguments);
    va_end(arguments);
    log::error(log::Topic::vm, "%.*s: the kernel cannot be started: %.*s",
               static_cast<int>(request.vm_name.size()), request.vm_name.data(),
               static_cast<int>(reason.size()), reason.data());
    return Unexpected{error};
}

Expected<EntryState> load(const LoadRequest& request, GuestMemory& memory) {
    MemoryPlan plan = HV_TRY(MemoryPlan::create(memory));
    switch (request.protocol) {
    case BootProtocol::linux:
        if (is_bzimage(request.kernel))
            return load_bzimage(request, plan, memory);
        if (ElfImage::is_elf(request.kernel))
            return load_pvh(request, plan, memory);
        return refuse(request, Error::unsupported, "it is neither a bzImage nor an ELF file");
    case BootProtocol::pvh: return load_pvh(request, plan, memory);
    case BootProtocol::multiboot: return load_multiboot(request, plan, memory);
    case BootProtocol::firmware: break;
    }
    return refuse(request, Error::unsupported, "boot = \"%s\" is not supported", to_string(request.protocol));
}

}  // namespace hv::loader
