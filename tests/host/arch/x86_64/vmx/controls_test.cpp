// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/vmx/controls.hpp"
#include "arch/x86_64/vmx/recorded_msrs.hpp"
#include "catch.hpp"
#include "fakes/log_capture.hpp"

#include <string>
#include <vector>

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {

Error refusal(RecordedMsrs& msrs) {
    auto controls = negotiate(read_capabilities(msrs));
    REQUIRE_FALSE(controls);
    return controls.error();
}

}  // namespace

TEST_CASE("a Broadwell's controls are negotiated", "[vmx]") {
    const Controls c = broadwell_controls();
    CHECK(c.pin == (0x16 | pin::EXTERNAL_INTERRUPT_EXITING | pin::NMI_EXITING | pin::VIRTUAL_NMIS |
                    pin::PREEMPTION_TIMER));
    CHECK((c.primary & (primary::HLT_EXITING | primary::USE_IO_BITMAPS | primary::USE_MSR_BITMAPS |
                        primary::SECONDARY_CONTROLS)) ==
          (primary::HLT_EXITING | primary::USE_IO_BITMAPS | primary::USE_MSR_BITMAPS |
           primary::SECONDARY_CONTROLS));
    // What shall not exit: the TRUE capabilities allow these to be 0.
    CHECK((c.primary & (primary::CR3_LOAD_EXITING | primary::CR3_STORE_EXITING | primary::INVLPG_EXITING |
                        primary::MOV_DR_EXITING | primary::RDTSC_EXITING | primary::UNCONDITIONAL_IO_EXITING |
                        primary::PAUSE_EXITING)) == 0);
    CHECK((c.primary & (primary::INTERRUPT_WINDOW_EXITING | primary::NMI_WINDOW_EXITING)) == 0);
    CHECK(c.secondary == (secondary::ENABLE_EPT | secondary::UNRESTRICTED_GUEST | secondary::ENABLE_VPID |
                          secondary::ENABLE_RDTSCP | secondary::ENABLE_INVPCID |
                          secondary::PAUSE_LOOP_EXITING | secondary::WBINVD_EXITING |
                          secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY));
    CHECK((c.primary & (primary::CR8_LOAD_EXITING | primary::CR8_STORE_EXITING)) == 0);
    CHECK((c.exit & vm_exit::HOST_ADDRESS_SPACE_SIZE) != 0);
    CHECK((c.exit & (vm_exit::ACKNOWLEDGE_INTERRUPT | vm_exit::SAVE_PREEMPTION_TIMER)) ==
          vm_exit::SAVE_PREEMPTION_TIMER);
    CHECK((c.entry & vm_entry::IA32E_MODE_GUEST) == 0);
    CHECK(c.has_vpid());
    CHECK(c.has_preemption_timer());
    CHECK(c.invept_type() == InveptType::single_context);
    CHECK(c.invvpid_type() == InvvpidType::single_context);
    // Every control word obeys its capability MSR.
    for (const auto& [value, capability] :
         {std::pair{c.pin, c.caps.pin}, std::pair{c.primary, c.caps.primary},
          std::pair{c.secondary, c.caps.secondary}, std::pair{c.exit, c.caps.exit},
          std::pair{c.entry, c.caps.entry}}) {
        CHECK((static_cast<std::uint32_t>(capability) & ~value) == 0);
        CHECK((value & ~static_cast<std::uint32_t>(capability >> 32)) == 0);
    }
}

TEST_CASE("of APIC virtualization the TPR shadow is used alone, the rest as a whole", "[vmx]") {
    struct Case {
        Msr capability;
        std::uint32_t missing;
        ApicUse use;
        bool tpr_shadow, delivery;
    };
    constexpr Msr kPin = Msr::IA32_VMX_TRUE_PINBASED_CTLS;
    constexpr Msr kPrimary = Msr::IA32_VMX_TRUE_PROCBASED_CTLS, kSecondary = Msr::IA32_VMX_PROCBASED_CTLS2;
    const Case cases[] = {
        {kSecondary, 0, ApicUse::all, true, true},
        {kSecondary, 0, ApicUse::tpr_shadow, true, false},
        {kPin, 0, ApicUse::automatic, true, true},
        {kPin, pin::POSTED_INTERRUPTS, ApicUse::automatic, true, false},
        {kPin, pin::POSTED_INTERRUPTS, ApicUse::all, true, true},
        {kSecondary, 0, ApicUse::none, false, false},
        {kPrimary, primary::USE_TPR_SHADOW, ApicUse::all, false, false},
        {kSecondary, secondary::VIRTUALIZE_APIC_ACCESSES, ApicUse::all, true, false},
        {kSecondary, secondary::VIRTUALIZE_X2APIC_MODE, ApicUse::all, true, false},
        {kSecondary, secondary::APIC_REGISTER_VIRTUALIZATION, ApicUse::all, true, false},
        {kSecondary, secondary::VIRTUAL_INTERRUPT_DELIVERY, ApicUse::all, true, false},
    };
    for (const Case& each : cases) {
        INFO(static_cast<int>(each.capability) << " without " << each.missing);
        RecordedMsrs msrs;
        msrs.msrs[kPin] |= std::uint64_t{pin::POSTED_INTERRUPTS} << 32;
        msrs.forbid(each.capability, each.missing);
        const Controls c = negotiate(read_capabilities(msrs), each.use).value();
        CHECK(c.has_tpr_shadow() == each.tpr_shadow);
        CHECK(c.delivers_interrupts() == each.delivery);
        constexpr std::uint32_t kCr8 = primary::CR8_LOAD_EXITING | primary::CR8_STORE_EXITING;
        CHECK((c.primary & kCr8) == (each.tpr_shadow ? 0 : kCr8));
        constexpr std::uint32_t kBoth =
            secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY;
        CHECK((c.secondary & kBoth) == (each.delivery ? kBoth : 0));
        // The mode's control comes with the mode.
        CHECK((c.secondary & (secondary::VIRTUALIZE_APIC_ACCESSES | secondary::VIRTUALIZE_X2APIC_MODE)) == 0);
    }
}

TEST_CASE("each missing requirement refuses the processor and is named", "[vmx]") {
    struct Case {
        Msr capability;
        std::uint32_t bit;
        const char* name;
    };
    const Case cases[] = {
        {Msr::IA32_VMX_TRUE_PINBASED_CTLS, pin::EXTERNAL_INTERRUPT_EXITING, "external-interrupt exiting"},
        {Msr::IA32_VMX_TRUE_PINBASED_CTLS, pin::VIRTUAL_NMIS, "virtual NMIs"},
        {Msr::IA32_VMX_TRUE_PROCBASED_CTLS, primary::USE_MSR_BITMAPS, "MSR bitmaps"},
        {Msr::IA32_VMX_TRUE_PROCBASED_CTLS, primary::USE_IO_BITMAPS, "I/O bitmaps"},
        {Msr::IA32_VMX_TRUE_PROCBASED_CTLS, primary::NMI_WINDOW_EXITING, "NMI-window exiting"},
        {Msr::IA32_VMX_PROCBASED_CTLS2, secondary::ENABLE_EPT, "EPT"},
        {Msr::IA32_VMX_PROCBASED_CTLS2, secondary::UNRESTRICTED_GUEST, "unrestricted guest"},
        {Msr::IA32_VMX_TRUE_EXIT_CTLS, vm_exit::SAVE_IA32_EFER, "saving of IA32_EFER"},
        {Msr::IA32_VMX_TRUE_ENTRY_CTLS, vm_entry::LOAD_IA32_PAT, "loading of IA32_PAT on VM entry"},
        {Msr::IA32_VMX_TRUE_ENTRY_CTLS, vm_entry::IA32E_MODE_GUEST, "64-bit guests"},
    };
    for (const Case& missing : cases) {
        INFO(missing.name);
        RecordedMsrs msrs;
        fake::LogCapture log;
        msrs.forbid(missing.capability, missing.bit);
        CHECK(refusal(msrs) == Error::unsupported);
        CHECK(log.mentions(missing.name));
    }
    RecordedMsrs msrs;
    fake::LogCapture log;
    msrs.msrs[Msr::IA32_VMX_EPT_VPID_CAP] &= ~(EptVpidCap::WalkLength4::kMask | EptVpidCap::WriteBack::kMask);
    msrs.msrs[Msr::IA32_VMX_MISC] &= ~VmxMisc::StoresLma::kMask;
    CHECK(refusal(msrs) == Error::unsupported);
    CHECK(log.lines.size() == 3);
}

TEST_CASE("a Lynnfield is refused for want of unrestricted guest alone", "[vmx]") {
    RecordedMsrs msrs{corpus::kBochsLynnfield};
    fake::LogCapture log;
    CHECK(refusal(msrs) == Error::unsupported);
    REQUIRE(log.lines.size() == 1);
    CHECK(log.mentions("unrestricted guest"));
}

TEST_CASE("a processor without secondary controls has no secondary capability MSRs", "[vmx]") {
    RecordedMsrs msrs;
    fake::LogCapture log;
    msrs.forbid(Msr::IA32_VMX_TRUE_PROCBASED_CTLS, primary::SECONDARY_CONTROLS);
    msrs.msrs.erase(Msr::IA32_VMX_PROCBASED_CTLS2);
    msrs.msrs.erase(Msr::IA32_VMX_EPT_VPID_CAP);
    CHECK(refusal(msrs) == Error::unsupported);
    CHECK(log.mentions("secondary controls"));
}

TEST_CASE("without TRUE capability MSRs the original ones count", "[vmx]") {
    RecordedMsrs msrs;
    msrs.msrs[Msr::IA32_VMX_BASIC] &= ~VmxBasic::TrueControls::kMask;
    for (const Msr msr : {Msr::IA32_VMX_TRUE_PINBASED_CTLS, Msr::IA32_VMX_TRUE_PROCBASED_CTLS,
                          Msr::IA32_VMX_TRUE_EXIT_CTLS, Msr::IA32_VMX_TRUE_ENTRY_CTLS})
        msrs.msrs.erase(msr);
    const Controls c = negotiate(read_capabilities(msrs)).value();
    // There, CR3 accesses have to exit.
    CHECK((c.primary & primary::CR3_LOAD_EXITING) != 0);
}

TEST_CASE("what is merely wanted is left away where it is missing", "[vmx]") {
    RecordedMsrs msrs;
    msrs.forbid(Msr::IA32_VMX_TRUE_PINBASED_CTLS, pin::PREEMPTION_TIMER);
    msrs.forbid(Msr::IA32_VMX_PROCBASED_CTLS2,
                secondary::ENABLE_VPID | secondary::PAUSE_LOOP_EXITING | secondary::ENABLE_RDTSCP);
    msrs.msrs[Msr::IA32_VMX_EPT_VPID_CAP] &= ~EptVpidCap::InveptSingle::kMask;
    const Controls c = negotiate(read_capabilities(msrs)).value();
    CHECK_FALSE(c.has_preemption_timer());
    CHECK((c.exit & vm_exit::SAVE_PREEMPTION_TIMER) == 0);
    CHECK_FALSE(c.has_vpid());
    CHECK_FALSE(c.has_rdtscp());
    CHECK(c.lacks_pause_loop_exiting());
    CHECK(c.invept_type() == InveptType::all_contexts);
}

TEST_CASE("PAUSE exiting stands in for pause-loop exiting only where it can be set", "[vmx]") {
    CHECK_FALSE(broadwell_controls().lacks_pause_loop_exiting());
    RecordedMsrs msrs;
    msrs.forbid(Msr::IA32_VMX_PROCBASED_CTLS2, secondary::PAUSE_LOOP_EXITING);
    msrs.forbid(Msr::IA32_VMX_TRUE_PROCBASED_CTLS, primary::PAUSE_EXITING);
    CHECK_FALSE(negotiate(read_capabilities(msrs)).value().lacks_pause_loop_exiting());
}

TEST_CASE("VPIDs are not used without a way to flush one", "[vmx]") {
    RecordedMsrs msrs;
    msrs.msrs[Msr::IA32_VMX_EPT_VPID_CAP] &=
        ~(EptVpidCap::InvvpidSingle::kMask | EptVpidCap::InvvpidAll::kMask);
    CHECK_FALSE(negotiate(read_capabilities(msrs)).value().has_vpid());
}

TEST_CASE("IA32_FEATURE_CONTROL decides whether VMX may be used", "[vmx]") {
    RecordedMsrs msrs;
    SECTION("locked with VMX on") {
        msrs.msrs[Msr::IA32_FEATURE_CONTROL] = 5;
        CHECK(unlock_feature_control(msrs));
        CHECK(msrs.written.empty());
    }
    SECTION("locked with VMX off") {
        msrs.msrs[Msr::IA32_FEATURE_CONTROL] = 1;
        CHECK(unlock_feature_control(msrs).error() == Error::disabled);
    }
    SECTION("locked with VMX inside SMX only") {
        msrs.msrs[Msr::IA32_FEATURE_CONTROL] = 3;
        CHECK(unlock_feature_control(msrs).error() == Error::disabled);
    }
    SECTION("left open: set and locked, the rest kept") {
        msrs.msrs[Msr::IA32_FEATURE_CONTROL] = 0x10'0000;
        CHECK(unlock_feature_control(msrs));
        CHECK(msrs.msrs[Msr::IA32_FEATURE_CONTROL] == 0x10'0005);
    }
}

TEST_CASE("mitigations follow what the processor says of itself", "[vmx]") {
    namespace edx = cpuid::leaf7_edx;
    constexpr std::uint32_t kAll = edx::IBRS_IBPB | edx::L1D_FLUSH | edx::MD_CLEAR;
    // An old processor with new microcode: everything.
    Mitigations m = choose_mitigations(0, kAll, 0);
    CHECK((m.predictor_barrier && m.flush_l1d && m.clear_buffers));
    // Old microcode: there is nothing to do it with.
    m = choose_mitigations(0, 0, 0);
    CHECK_FALSE((m.predictor_barrier || m.flush_l1d || m.clear_buffers));
    // RDCL_NO, MDS_NO; with TSX the buffers leak all the same unless TAA_NO.
    m = choose_mitigations(0, kAll, 0x21);
    CHECK((m.predictor_barrier && !m.flush_l1d && !m.clear_buffers));
    CHECK(choose_mitigations(cpuid::leaf7_ebx::RTM, kAll, 0x21).clear_buffers);
    CHECK_FALSE(choose_mitigations(cpuid::leaf7_ebx::RTM, kAll, 0x121).clear_buffers);
}
