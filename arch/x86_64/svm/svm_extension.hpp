// SPDX-License-Identifier: MIT
// AMD-V as a whole: what the processor offers, what each CPU needs, and the address space identifiers.
#pragma once

#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/svm/asid.hpp"
#include "arch/x86_64/svm/exit_decode.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/frame_source.hpp"

#include <array>

namespace hv::svm {

class SvmExtension final : public VirtExtension {
public:
    /// Whether the processor has SVM at all [apm2 15.4 Enabling SVM].
    static bool present();
    /// Error::unsupported: no nested paging (said in the log); Error::disabled: locked off by the firmware.
    static Expected<std::unique_ptr<VirtExtension>> create(FrameSource& frames);

    [[nodiscard]] const char* name() const override { return "AMD-V"; }
    Expected<void> enable_on_this_cpu() override;
    Expected<std::unique_ptr<GuestAddressSpace>> create_address_space() override;
    Expected<std::unique_ptr<VcpuBackend>> create_vcpu(GuestAddressSpace& space) override;

    // --- for SvmVcpu
    // -----------------------------------------------------------------------------------------------------
    /// An ASID that is fresh on the executing CPU.
    Asid next_asid();
    /// The executing CPU's generation.
    [[nodiscard]] std::uint64_t asid_generation() const;
    /// Before the guest with these nested tables runs on the executing CPU, where its vCPU has just `arrived`
    /// or was before: it must not run on branch targets that another one has trained.
    void separate_vms(std::uint64_t nested_root, bool arrived);
    [[nodiscard]] Hpa host_state() const;
    [[nodiscard]] const ExitAssists& assists() const { return assists_; }
    [[nodiscard]] bool has_clean_bits() const { return clean_bits_; }
    [[nodiscard]] bool has_pause_filter() const { return pause_filter_; }
    [[nodiscard]] Hpa io_permissions() const { return io_permissions_; }
    [[nodiscard]] Hpa msr_permissions() const { return msr_permissions_; }
    [[nodiscard]] FrameSource& frames() { return frames_; }

private:
    struct Cpu {
        Hpa host_save;   ///< VM_HSAVE_PA
        Hpa host_state;  ///< for VMSAVE and VMLOAD
        AsidPool asids;
        std::uint64_t last_root;  ///< of the guest that ran here last
    };
    explicit SvmExtension(FrameSource& frames) : frames_{frames} {}
    Expected<void> init_permissions();

    FrameSource& frames_;
    std::array<Cpu, cpu::kMaxCpus> cpus_{};
    ExitAssists assists_{};
    bool clean_bits_{false};
    bool pause_filter_{false};
    bool large_pages_1g_{false};
    bool predictor_barrier_{false};
    std::uint32_t asids_{2};
    Hpa io_permissions_{};
    Hpa msr_permissions_{};
};

}  // namespace hv::svm
