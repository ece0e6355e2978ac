// SPDX-License-Identifier: MIT
// What the backend puts into the VMCS for APIC virtualization, and what it makes of the exits.
#include "arch/x86_64/vmx/vcpu_fixture.hpp"

#include <optional>
#include <vector>

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {

using Mode = ApicAcceleration::Mode;
constexpr Gpa kApic{0xfee0'0000};

Controls controls_for(ApicUse use) {
    RecordedMsrs msrs;
    return negotiate(read_capabilities(msrs), use).value();
}

struct ApicBench : VcpuBench {
    explicit ApicBench(ApicUse use = ApicUse::all) : VcpuBench{controls_for(use)} {}
    VmExit run(ExitReason reason, std::uint64_t qualification = 0) {
        return VcpuBench::run(reason, [=, this](FakeVmcs& vmcs) {
            vmcs.set(EXIT_QUALIFICATION, qualification);
            if (tpr_written)
                apic().page().write(8, *tpr_written);
        });
    }
    ApicAcceleration& apic() { return *vcpu->apic_acceleration(); }
    std::uint32_t mode_controls() {
        return vmcs().read(SECONDARY_PROCESSOR_BASED_CONTROLS) &
               (secondary::VIRTUALIZE_APIC_ACCESSES | secondary::VIRTUALIZE_X2APIC_MODE);
    }

    std::optional<std::uint32_t> tpr_written;
};

struct Client final : ApicAcceleration::Client {
    void task_priority_changed(std::uint8_t value) override { seen.push_back(value); }
    std::vector<unsigned> seen;
};

bool intercepted(const OwnedFrames& bitmap, std::uint32_t msr, bool write) {
    const std::byte bits = bitmap.data()[(write ? 2048 : 0) + msr / 8];
    return (bits >> (msr % 8) & std::byte{1}) != std::byte{0};
}

}  // namespace

TEST_CASE("nothing is offered where APIC virtualization is not used", "[vmx]") {
    ApicBench bench{ApicUse::none};
    CHECK(bench.vcpu->apic_acceleration() == nullptr);
    bench.vcpu->enter_cpu();
    CHECK_FALSE(bench.vmcs().fields.contains(VIRTUAL_APIC_ADDRESS.encoding));
    CHECK_FALSE(bench.vmcs().fields.contains(GUEST_INTERRUPT_STATUS.encoding));
    bench.vcpu->leave_cpu();
}

TEST_CASE("the APIC's mode decides controls, MSR bitmap and APIC-access page", "[vmx]") {
    ApicBench bench;
    CHECK(bench.apic().extent() == ApicAcceleration::Extent::interrupts);
    bench.vcpu->enter_cpu();
    CHECK(bench.vmcs().read(VIRTUAL_APIC_ADDRESS) != 0);
    CHECK(bench.vmcs().read(APIC_ACCESS_ADDRESS) == bench.shared->apic_access_page.hpa().raw);
    bench.apic().set_mode(Mode::xapic, kApic);
    CHECK(bench.mode_controls() == secondary::VIRTUALIZE_APIC_ACCESSES);
    CHECK(bench.vmcs().read(MSR_BITMAP) == bench.shared->msr_bitmap.hpa().raw);
    CHECK(bench.space->translate(kApic) == bench.shared->apic_access_page.hpa());

    bench.run(ExitReason::CPUID);
    bench.cpu.log.clear();
    bench.apic().set_mode(Mode::x2apic, kApic);
    CHECK(bench.mode_controls() == secondary::VIRTUALIZE_X2APIC_MODE);
    CHECK(bench.vmcs().read(MSR_BITMAP) == bench.shared->x2apic_msr_bitmap.hpa().raw);
    CHECK_FALSE(bench.space->translate(kApic));
    bench.run(ExitReason::CPUID);
    CHECK(bench.cpu.did("invept 1 " + std::to_string(bench.space->root())));

    bench.apic().set_mode(Mode::disabled, kApic);
    CHECK(bench.mode_controls() == 0);
    bench.apic().set_mode(Mode::xapic, Gpa{0xfed8'0000});
    CHECK_FALSE(bench.space->translate(kApic));
    CHECK(bench.space->translate(Gpa{0xfed8'0000}));
    bench.vcpu->leave_cpu();
}

TEST_CASE("the APIC-access page is there while all vCPUs have their APIC there, and no RAM", "[vmx]") {
    ApicBench bench;
    auto other = bench.make_vcpu();
    ApicAcceleration& second = *other->apic_acceleration();
    bench.apic().set_mode(Mode::xapic, kApic);
    CHECK_FALSE(bench.space->translate(kApic));
    second.set_mode(Mode::xapic, kApic);
    CHECK(bench.space->translate(kApic));
    second.set_mode(Mode::x2apic, kApic);
    CHECK_FALSE(bench.space->translate(kApic));
    other.reset();
    bench.apic().set_mode(Mode::xapic, kApic);
    CHECK(bench.space->translate(kApic));
    REQUIRE(bench.space->map(Gpa{0}, Hpa{kPage2M}, kPage2M, GuestAccess::read_write_execute));
    bench.apic().set_mode(Mode::xapic, Gpa{0x1000});
    CHECK(bench.space->translate(Gpa{0x1000}) == Hpa{kPage2M + 0x1000});
    bench.apic().set_mode(Mode::disabled, Gpa{0x1000});
    CHECK(bench.space->translate(Gpa{0x1000}) == Hpa{kPage2M + 0x1000});
}

TEST_CASE("in x2APIC mode what the page holds is read and written without exits", "[vmx]") {
    ApicBench bench;
    for (std::uint32_t msr = 0x800; msr < 0x900; ++msr) {
        INFO("MSR " << std::hex << msr);
        const bool read = msr == 0x802 || msr == 0x803 || msr == 0x808 || msr == 0x80a || msr == 0x80d ||
                          msr == 0x80f || (msr >= 0x810 && msr <= 0x828) || (msr >= 0x832 && msr <= 0x837) ||
                          msr == 0x83e;
        CHECK(intercepted(bench.shared->x2apic_msr_bitmap, msr, false) == !read);
        CHECK(intercepted(bench.shared->x2apic_msr_bitmap, msr, true) ==
              !(msr == 0x808 || msr == 0x80b || msr == 0x83f));
        CHECK(intercepted(bench.shared->msr_bitmap, msr, false));
        CHECK(intercepted(bench.shared->msr_bitmap, msr, true));
    }
}

TEST_CASE("interrupt status and EOI exits reach the VMCS, at once or when the vCPU comes to a CPU", "[vmx]") {
    ApicBench bench;
    bench.apic().set_status({0x61, 0x41});
    bench.apic().set_eoi_exits(2, 0x80);
    bench.apic().set_mode(Mode::xapic, kApic);
    bench.vcpu->enter_cpu();
    CHECK(bench.vmcs().read(GUEST_INTERRUPT_STATUS) == 0x4161);
    CHECK(bench.vmcs().read(EOI_EXIT_BITMAP_2) == 0x80);
    CHECK(bench.mode_controls() == secondary::VIRTUALIZE_APIC_ACCESSES);
    bench.apic().set_status({0x71, 0});
    bench.apic().set_eoi_exits(2, 0);
    CHECK(bench.vmcs().read(GUEST_INTERRUPT_STATUS) == 0x71);
    CHECK(bench.vmcs().read(EOI_EXIT_BITMAP_2) == 0);
    // The processor delivers; elsewhere only the mode is changed.
    bench.vmcs().set(GUEST_INTERRUPT_STATUS, 0x7100);
    bench.vcpu->leave_cpu();
    CHECK(bench.apic().status().in_service == 0x71);
    bench.apic().set_mode(Mode::x2apic, kApic);
    bench.vcpu->enter_cpu();
    CHECK(bench.vmcs().read(GUEST_INTERRUPT_STATUS) == 0x7100);
    bench.vcpu->leave_cpu();
}

TEST_CASE("APIC exits: an access that is emulated, and writes and EOIs that are done", "[vmx]") {
    ApicBench bench;
    bench.vcpu->enter_cpu();
    bench.apic().set_mode(Mode::xapic, Gpa{0xfed8'0000});
    VmExit exit = bench.run(ExitReason::APIC_ACCESS, 0x390);
    CHECK(exit.reason == VmExit::Reason::nested_fault);
    CHECK((exit.fault.gpa == Gpa{0xfed8'0390} && exit.fault.read && !exit.fault.write));
    exit = bench.run(ExitReason::APIC_ACCESS, 0x1034);
    CHECK((exit.fault.gpa == Gpa{0xfed8'0034} && exit.fault.write && !exit.fault.during_walk));
    exit = bench.run(ExitReason::APIC_ACCESS, 0x2000);
    CHECK(exit.fault.execute);
    exit = bench.run(ExitReason::APIC_ACCESS, 0xf000);
    CHECK(exit.fault.during_walk);
    exit = bench.run(ExitReason::APIC_WRITE, 0x320);
    CHECK((exit.reason == VmExit::Reason::apic_write && exit.apic.offset == 0x320));
    exit = bench.run(ExitReason::VIRTUALIZED_EOI, 0x71);
    CHECK((exit.reason == VmExit::Reason::apic_eoi && exit.apic.vector == 0x71));
    bench.vcpu->leave_cpu();
}

TEST_CASE("with a TPR shadow alone, the threshold follows what waits below TPR", "[vmx]") {
    ApicBench bench{ApicUse::tpr_shadow};
    CHECK(bench.apic().extent() == ApicAcceleration::Extent::task_priority);
    Client client;
    int request = -1;
    bench.apic().watch(client, request);
    bench.vcpu->enter_cpu();
    bench.apic().page().write(8, 0x70);
    bench.run(ExitReason::CPUID);
    CHECK(bench.vmcs().read(TPR_THRESHOLD) == 0);
    CHECK(client.seen.empty());
    request = 0x61;
    bench.run(ExitReason::CPUID);
    CHECK(bench.vmcs().read(TPR_THRESHOLD) == 6);
    bench.tpr_written = 0x20;
    CHECK(bench.run(ExitReason::TPR_BELOW_THRESHOLD).reason == VmExit::Reason::interrupt_window);
    CHECK(client.seen == std::vector<unsigned>{0x20});
    // TPR no longer holds it back: VM entry would refuse a threshold above TPR.
    bench.run(ExitReason::CPUID);
    CHECK(bench.vmcs().read(TPR_THRESHOLD) == 0);
    bench.vcpu->leave_cpu();
}
