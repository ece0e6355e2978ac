// SPDX-License-Identifier: MIT
#include "arch/x86_64/svm/svm_extension.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/msr.hpp"
#include "arch/x86_64/paging/nested_address_space.hpp"
#include "arch/x86_64/paging/npt_format.hpp"
#include "arch/x86_64/svm/instructions.hpp"
#include "arch/x86_64/svm/svm_vcpu.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/vec.hpp"

#include <cstring>

namespace hv::svm {
namespace {

constexpr std::uint32_t kMsrVmCr = 0xc001'0114;
constexpr std::uint32_t kMsrHsavePa = 0xc001'0117;
constexpr std::uint64_t kVmCrSvmDisable = bit(4);  // SVMDIS [apm2 15.30.1 VM_CR MSR]

constexpr std::uint32_t kIoPermissionOrder = 2;  // 12 KiB are needed
constexpr std::uint32_t kMsrPermissionOrder = 1;

enum class Access : std::uint8_t { read = 1, write = 2, both = 3 };

/// MSRs that hold addresses and refuse those that are not canonical [apm2 A.2 System-Software MSRs], [apm3
/// WRMSR]. Where the processor, an emulator perhaps, takes them all the same, we check.
constexpr Msr kCanonicalMsrs[] = {Msr::IA32_LSTAR, Msr::IA32_CSTAR, Msr::IA32_FS_BASE, Msr::IA32_GS_BASE,
                                  Msr::IA32_KERNEL_GS_BASE};

/// MSRs that belong to the guest while it runs: VMLOAD, VMSAVE and VMRUN switch them, or SvmVcpu does with
/// the vCPU.
constexpr Msr kGuestMsrs[] = {
    Msr::IA32_STAR, Msr::IA32_FMASK, Msr::IA32_SYSENTER_CS, Msr::IA32_SYSENTER_ESP, Msr::IA32_SYSENTER_EIP,
};

/// The host itself has no use for this one.
bool checks_canonical_addresses() {
    constexpr std::uint64_t kNotCanonical = std::uint64_t{1} << 63;
    const auto msr = static_cast<std::uint32_t>(Msr::IA32_KERNEL_GS_BASE);
    const std::uint64_t before = cpu::rdmsr(msr);
    if (!cpu::try_wrmsr(msr, kNotCanonical))
        return true;
    cpu::wrmsr(msr, before);
    return false;
}

/// Clears an MSR's bits in the permission map [apm2 15.11 MSR Intercepts]: of each pair the lower is the
/// read's.
void allow_msr(std::byte* map, Msr msr, Access access) {
    const auto index = static_cast<std::uint32_t>(msr);
    const std::uint32_t block = index < 0x2000 ? 0 : index >= 0xc001'0000 ? 2 : 1;
    const std::uint32_t position = (block * 0x2000 + (index & 0x1fff)) * 2;
    map[position / 8] &= static_cast<std::byte>(~(static_cast<unsigned>(access) << (position % 8)));
}

}  // namespace

bool SvmExtension::present() {
    return cpu::cpuid(0x8000'0000).eax >= 0x8000'000a && (cpu::cpuid(0x8000'0001).ecx & (1U << 2)) != 0;
}

Expected<std::unique_ptr<VirtExtension>> SvmExtension::create(FrameSource& frames) {
    if (!present())
        return Unexpected{Error::unsupported};
    if ((cpu::rdmsr(kMsrVmCr) & kVmCrSvmDisable) != 0) {
        log::error(log::Topic::svm,
                   "AMD-V is switched off by the firmware (VM_CR.SVMDIS); enable SVM in its setup");
        return Unexpected{Error::disabled};
    }
    const auto features = cpu::cpuid(0x8000'000a);
    if ((features.edx & 1U) == 0) {
        log::error(
            log::Topic::svm,
            "this processor has AMD-V without nested paging (CPUID 8000000Ah EDX bit 0), which is needed");
        return Unexpected{Error::unsupported};
    }
    std::unique_ptr<SvmExtension> extension{new (std::nothrow) SvmExtension{frames}};
    if (extension == nullptr)
        return Unexpected{Error::no_memory};
    extension->assists_ = {(features.edx & (1U << 3)) != 0, (features.edx & (1U << 7)) != 0};
    extension->clean_bits_ = (features.edx & (1U << 5)) != 0;
    extension->pause_filter_ = (features.edx & (1U << 10)) != 0;
    extension->large_pages_1g_ = (cpu::cpuid(0x8000'0001).edx & (1U << 26)) != 0;
    extension->asids_ = features.ebx;
    if (cpu::cpuid(0x8000'0000).eax >= 0x8000'0008)
        extension->predictor_barrier_ = (cpu::cpuid(0x8000'0008).ebx & (1U << 12)) != 0;
    HV_TRY(extension->init_permissions());
    log::info(log::Topic::svm, "AMD-V: %u ASIDs, nested paging%s%s%s%s", features.ebx,
              extension->assists_.next_rip ? ", next RIP" : "",
              extension->assists_.decode ? ", decode assists" : "",
              extension->clean_bits_ ? ", VMCB clean bits" : "",
              extension->pause_filter_ ? ", pause filter" : "");
    return std::unique_ptr<VirtExtension>{std::move(extension)};
}

Expected<void> SvmExtension::init_permissions() {
    io_permissions_ = HV_TRY(frames_.allocate(kIoPermissionOrder));
    msr_permissions_ = HV_TRY(frames_.allocate(kMsrPermissionOrder));
    std::memset(machine::hva(io_permissions_), 0xff, kPageSize << kIoPermissionOrder);
    std::memset(machine::hva(msr_permissions_), 0xff, kPageSize << kMsrPermissionOrder);
    for (const Msr msr : kGuestMsrs)
        allow_msr(machine::hva(msr_permissions_), msr, Access::both);
    // Written rarely, and its upper half is reserved.
    allow_msr(machine::hva(msr_permissions_), Msr::IA32_TSC_AUX, Access::read);
    const Access canonical = checks_canonical_addresses() ? Access::both : Access::read;
    for (const Msr msr : kCanonicalMsrs)
        allow_msr(machine::hva(msr_permissions_), msr, canonical);
    return {};
}

Expected<void> SvmExtension::enable_on_this_cpu() {
    Cpu& cpu = cpus_[machine::cpu_index()];
    cpu.host_save = HV_TRY(frames_.allocate(0));
    cpu.host_state = HV_TRY(frames_.allocate(0));
    std::memset(machine::hva(cpu.host_save), 0, kPageSize);
    std::memset(machine::hva(cpu.host_state), 0, kPageSize);
    cpu.asids.init(asids_);
    cpu::wrmsr(static_cast<std::uint32_t>(Msr::IA32_EFER),
               cpu::rdmsr(static_cast<std::uint32_t>(Msr::IA32_EFER)) | EFER_SVME);
    cpu::wrmsr(kMsrHsavePa, cpu.host_save.raw);
    vmsave(cpu.host_state);
    return {};
}

Expected<std::unique_ptr<GuestAddressSpace>> SvmExtension::create_address_space() {
    return paging::NestedAddressSpace<paging::NptFormat>::create(frames_, paging::NptFormat{large_pages_1g_});
}

Expected<std::unique_ptr<VcpuBackend>> SvmExtension::create_vcpu(GuestAddressSpace& space) {
    return SvmVcpu::create(*this, space);
}

Asid SvmExtension::next_asid() {
    return cpus_[machine::cpu_index()].asids.next();
}
std::uint64_t SvmExtension::asid_generation() const {
    return cpus_[machine::cpu_index()].asids.generation();
}

void SvmExtension::separate_vms(std::uint64_t nested_root, bool arrived) {
    constexpr std::uint64_t kIbpb = 1;  // [apm2 3.2.9 Speculation Control MSRs]
    Cpu& cpu = cpus_[machine::cpu_index()];
    if (predictor_barrier_ && (arrived || cpu.last_root != nested_root))
        cpu::wrmsr(static_cast<std::uint32_t>(Msr::IA32_PRED_CMD), kIbpb);
    cpu.last_root = nested_root;
}

Hpa SvmExtension::host_state() const {
    return cpus_[machine::cpu_index()].host_state;
}

}  // namespace hv::svm
