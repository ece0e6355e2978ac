// SPDX-License-Identifier: MIT
#include "boot/main/platform.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/svm/svm_extension.hpp"
#include "vmm/base/log.hpp"
namespace hv::boot {
void run_platform(const BootInfo& info, const Options&, FrameAllocator& frames, std::uint64_t) {
    log::info(log::Topic::boot, "%zu modules, free %llu", info.modules.size(), static_cast<unsigned long long>(frames.statistics().free_bytes));
    auto e = svm::SvmExtension::create(frames);
    log::info(log::Topic::boot, "svm %d", e.has_value());
    if (e) { auto r = (*e)->enable_on_this_cpu(); log::info(log::Topic::boot, "enable %d", r.has_value()); }
    panic("test");
}
}
