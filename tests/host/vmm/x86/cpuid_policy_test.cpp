// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/msr.hpp"
#include "catch.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/cpuid_policy.hpp"

#include <cstring>
#include <map>
#include <string>
#include <utility>

namespace hv::x86 {
namespace {

using namespace cpuid;

/// A processor that claims every feature there is.
struct FakeCpuid {
    explicit FakeCpuid(const char* vendor) {
        const auto word = [&](unsigned at) {
            std::uint32_t value = 0;
            std::memcpy(&value, vendor + at, 4);
            return value;
        };
        leaves[{0, 0}] = {0x20, word(0), word(8), word(4)};
        leaves[{1, 0}] = {0x000a'0f11, 0x0510'0800, ~0u, ~0u};
        leaves[{4, 0}] = {0x1c00'4121, 0x01c0'003f, 63, 0};
        leaves[{4, 1}] = {0x1c00'4143, 0x01c0'003f, 1023, 0};
        leaves[{4, 2}] = {0x1c03'c163, 0x02c0'003f, 8191, 0};
        leaves[{5, 0}] = leaves[{0xa, 0}] = leaves[{0x12, 0}] = {~0u, ~0u, ~0u, ~0u};
        leaves[{7, 0}] = {2, ~0u, ~0u, ~0u};
        leaves[{7, 1}] = {~0u, ~0u, ~0u, ~0u};
        leaves[{0xd, 0}] = {0x602e7, 0x2b00, 0x2b00, 0};
        leaves[{0xd, 1}] = {0x1f, 0x2400, 0x1900, 0};
        leaves[{0xd, 2}] = {256, 576, 0, 0};
        leaves[{0xd, 5}] = {64, 1088, 0, 0};
        leaves[{0xd, 6}] = {512, 1152, 0, 0};
        leaves[{0xd, 7}] = {1024, 1664, 0, 0};
        leaves[{0xd, 9}] = {8, 2688, 0, 0};
        leaves[{0x8000'0000, 0}] = {0x8000'0028, 0, 0, 0};
        leaves[{0x8000'0001, 0}] = {0x000a'0f11, 0, ~0u, ~0u};
        leaves[{0x8000'0007, 0}] = {~0u, ~0u, ~0u, ~0u};
        leaves[{0x8000'0008, 0}] = {0x0000'3934, ~0u, 0x703f, ~0u};
        leaves[{0x8000'000a, 0}] = {~0u, ~0u, ~0u, ~0u};
        leaves[{0x8000'001d, 0}] = {0x0000'4121, 0x01c0'003f, 63, 0};
        leaves[{0x8000'001d, 1}] = {0x0003'c163, 0x03c0'003f, 0x7fff, 1};
    }
    CpuidRegs cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
        const auto found = leaves.find({leaf, subleaf});
        return found == leaves.end() ? CpuidRegs{} : found->second;
    }
    std::map<std::pair<std::uint32_t, std::uint32_t>, CpuidRegs> leaves;
};

constexpr const char* kIntel = "GenuineIntel";
constexpr const char* kAmd = "AuthenticAMD";

struct Vcpu {
    Vcpu(const char* vendor, std::uint32_t count, std::uint64_t tsc_hz = 2'595'124'000)
        : Vcpu{FakeCpuid{vendor}, count, tsc_hz} {}
    Vcpu(FakeCpuid io, std::uint32_t count, std::uint64_t tsc_hz = 2'595'124'000)
        : policy{CpuidPolicy::create(io, {.vcpus = count, .tsc_hz = tsc_hz})} {}
    CpuidRegs get(std::uint32_t leaf, std::uint32_t subleaf = 0, std::uint32_t apic_id = 0) {
        return policy.lookup(leaf, subleaf, backend, apic_id, APIC_BASE_ENABLE);
    }
    CpuidPolicy policy;
    fake::FakeVcpuBackend backend;
};

}  // namespace

TEST_CASE("what a host has and the list does not is hidden", "[x86]") {
    for (const char* vendor : {kIntel, kAmd}) {
        Vcpu vcpu{vendor, 2};
        const CpuidRegs one = vcpu.get(1);
        CHECK((one.ecx & (leaf1_ecx::VMX | leaf1_ecx::SMX | leaf1_ecx::MONITOR | leaf1_ecx::PDCM |
                          leaf1_ecx::EIST | leaf1_ecx::TM2 | leaf1_ecx::DTES64)) == 0);
        CHECK((one.edx & (leaf1_edx::DS | leaf1_edx::ACPI)) == 0);
        const CpuidRegs seven = vcpu.get(7);
        CHECK((seven.ebx & (leaf7_ebx::SGX | leaf7_ebx::HLE | leaf7_ebx::RTM | leaf7_ebx::MPX)) == 0);
        CHECK((seven.ecx & (leaf7_ecx::PKU | leaf7_ecx::CET_SS | leaf7_ecx::LA57 | leaf7_ecx::OSPKE)) == 0);
        CHECK((seven.edx & (leaf7_edx::IBRS_IBPB | leaf7_edx::ARCH_CAPABILITIES | leaf7_edx::CET_IBT |
                            7u << 22)) == (seven.edx & leaf7_edx::AVX512_FP16));  // bits 22, 24, 25: AMX
        CHECK((vcpu.get(kExtendedFeatures).ecx & (ext1_ecx::SVM | ext1_ecx::XOP | ext1_ecx::FMA4)) == 0);
        CHECK(vcpu.get(kAdvancedPower).edx == ext7_edx::INVARIANT_TSC);
        CHECK((vcpu.get(kXsave, 1).eax & leafd_1_eax::XSAVES) == 0);
        for (const std::uint32_t leaf : {5u, 0xau, 0x12u, 0x14u, 0x1cu, 0x4000'0011u})
            CHECK(vcpu.get(leaf) == CpuidRegs{});
    }
}

TEST_CASE("what the VMM does itself is offered on any host", "[x86]") {
    FakeCpuid poor{kIntel};
    poor.leaves[{1, 0}].ecx = 0;
    poor.leaves[{7, 0}] = {};
    Vcpu vcpu{std::move(poor), 1};
    CHECK(vcpu.get(1).ecx == (leaf1_ecx::X2APIC | leaf1_ecx::TSC_DEADLINE | leaf1_ecx::HYPERVISOR));
    CHECK(vcpu.get(7).ebx == leaf7_ebx::TSC_ADJUST);
    CHECK(vcpu.get(6).eax == leaf6_eax::ARAT);
    CHECK(vcpu.get(kXsave) == CpuidRegs{});
    CHECK((vcpu.policy.cpu().cr4_allowed & (CR4_OSXSAVE | CR4_PCIDE)) == 0);
}

TEST_CASE("leaf 1 follows the vCPU's state", "[x86]") {
    Vcpu vcpu{kIntel, 4};
    CHECK(vcpu.get(1, 0, 3).ebx >> 24 == 3);
    CHECK((vcpu.get(1).ebx >> 16 & 0xff) == 4);
    CHECK((vcpu.get(1).edx & leaf1_edx::HTT) != 0);
    CHECK((vcpu.get(1).ecx & leaf1_ecx::OSXSAVE) == 0);
    vcpu.backend.state.cr4 = CR4_OSXSAVE;
    CHECK((vcpu.get(1).ecx & leaf1_ecx::OSXSAVE) != 0);
    CHECK((vcpu.get(1).edx & leaf1_edx::APIC) != 0);
    CHECK((vcpu.policy.lookup(1, 0, vcpu.backend, 0, 0).edx & leaf1_edx::APIC) == 0);
}

TEST_CASE("XSAVE sizes follow XCR0, in both formats", "[x86]") {
    Vcpu vcpu{kIntel, 1};
    CHECK(vcpu.policy.cpu().xcr0_allowed == (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512));
    vcpu.backend.xcr0_value = XCR0_X87;
    CHECK(vcpu.get(kXsave) == CpuidRegs{0xe7, 576, 2688, 0});
    vcpu.backend.xcr0_value = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    CHECK(vcpu.get(kXsave).ebx == 832);
    vcpu.backend.xcr0_value = 0xe7;
    CHECK(vcpu.get(kXsave).ebx == 2688);
    CHECK(vcpu.get(kXsave, 1).ebx == 576 + 256 + 64 + 512 + 1024);
    CHECK(vcpu.get(kXsave, 7) == CpuidRegs{1024, 1664, 0, 0});
    CHECK(vcpu.get(kXsave, 9) == CpuidRegs{});
    CHECK(vcpu.get(kXsave, 100) == CpuidRegs{});
}

TEST_CASE("without AVX-512 state its instructions are hidden", "[x86]") {
    FakeCpuid host{kIntel};
    host.leaves[{0xd, 0}].eax = 0x7;
    Vcpu vcpu{std::move(host), 1};
    CHECK((vcpu.get(7).ebx & leaf7_ebx::AVX512F) == 0);
    CHECK((vcpu.get(7).ebx & leaf7_ebx::AVX2) != 0);
    CHECK((vcpu.get(7).ecx & leaf7_ecx::AVX512_VNNI) == 0);
}

TEST_CASE("the topology is one package of cores, told alike by all leaves", "[x86]") {
    for (const std::uint32_t count : {1u, 2u, 3u, 4u, 64u}) {
        unsigned bits = 0;
        while (1u << bits < count)
            ++bits;
        Vcpu intel{kIntel, count};
        for (const std::uint32_t leaf : {kTopology, kTopologyV2}) {
            CHECK(intel.get(leaf, 0, 1) == CpuidRegs{0, 1, 0x100, 1});
            CHECK(intel.get(leaf, 1, 1) == CpuidRegs{bits, count, 0x201, 1});
            CHECK(intel.get(leaf, 2, 1) == CpuidRegs{0, 0, 2, 1});
            CHECK(intel.get(leaf, 9, 1) == CpuidRegs{0, 0, 9, 1});
        }
        CHECK((intel.get(4, 0).eax >> 14 & 0xfff) == 0);
        CHECK((intel.get(4, 2).eax >> 14 & 0xfff) == (1u << bits) - 1);
        CHECK(intel.get(4, 2).eax >> 26 == std::min((1u << bits) - 1, 63u));
        CHECK(intel.get(4, 3) == CpuidRegs{});
        CHECK(intel.get(4, 77) == CpuidRegs{});
        Vcpu amd{kAmd, count};
        CHECK((amd.get(kAddressSizes).ecx & 0xff) == count - 1);
        CHECK((amd.get(kAddressSizes).ecx >> 12) == bits);
        CHECK(amd.get(kAmdTopology, 0, 1) == CpuidRegs{1, 1, 0, 0});
        CHECK((amd.get(kAmdCaches, 1).eax >> 14 & 0xfff) == (1u << bits) - 1);
        CHECK(amd.get(kTopology, 1, 1) == CpuidRegs{bits, count, 0x201, 1});
        CHECK(amd.get(kTopologyV2) == CpuidRegs{});
    }
}

TEST_CASE("the TSC frequency is exact in leaf 15h and repeated in KVM's leaf", "[x86]") {
    for (const std::uint64_t hz : {1'000'000'000ull, 2'595'124'000ull, 3'999'999'999ull, 50'000'000ull}) {
        Vcpu vcpu{kIntel, 1, hz};
        const CpuidRegs tsc = vcpu.get(kTsc);
        CHECK(static_cast<unsigned __int128>(tsc.ecx) * tsc.ebx / tsc.eax == hz);
        CHECK(static_cast<unsigned __int128>(tsc.ecx) * tsc.ebx % tsc.eax == 0);
        CHECK(vcpu.get(kHypervisorTiming).eax == hz / 1000);
        CHECK(vcpu.get(kHypervisorTiming).ebx == 1'000'000);
    }
}

TEST_CASE("KVM's signature and clock are there", "[x86]") {
    Vcpu vcpu{kAmd, 1};
    const CpuidRegs leaf = vcpu.get(kHypervisor);
    CHECK(leaf.eax == kHypervisorTiming);
    char signature[12];
    std::memcpy(signature, &leaf.ebx, 4);
    std::memcpy(signature + 4, &leaf.ecx, 4);
    std::memcpy(signature + 8, &leaf.edx, 4);
    CHECK(std::string(signature, 12) == std::string("KVMKVMKVM\0\0\0", 12));
    CHECK(vcpu.get(kHypervisorFeatures).eax == (1u << 0 | 1u << 3 | 1u << 24));
}

TEST_CASE("beyond the last basic leaf Intel repeats it and AMD returns zeros", "[x86]") {
    Vcpu intel{kIntel, 2};
    CHECK(intel.get(0x20, 1, 1) == intel.get(kTopologyV2, 1, 1));
    Vcpu amd{kAmd, 2};
    CHECK(amd.get(0x20) == CpuidRegs{});
}

TEST_CASE("beyond the last extended leaf likewise", "[x86]") {
    Vcpu intel{kIntel, 2};
    for (const std::uint32_t leaf : {0x8000'0009u, 0x8000'001du, 0x8000'001fu, 0x8000'0020u})
        CHECK(intel.get(leaf, 1, 1) == intel.get(kTopologyV2, 1, 1));
    Vcpu amd{kAmd, 2};
    CHECK(amd.get(0x8000'001f) == CpuidRegs{});
    CHECK(amd.get(0x8000'0020) == CpuidRegs{});
}

TEST_CASE("instructions that the extension keeps from guests are hidden", "[x86]") {
    FakeCpuid host{kIntel};
    const CpuidPolicy policy =
        CpuidPolicy::create(host, {.vcpus = 1, .instructions = {.rdtscp = false, .invpcid = false}});
    const fake::FakeVcpuBackend backend;
    const auto get = [&](std::uint32_t leaf) { return policy.lookup(leaf, 0, backend, 0, 0); };
    CHECK((get(7).ebx & leaf7_ebx::INVPCID) == 0);
    CHECK((get(7).ecx & leaf7_ecx::RDPID) == 0);
    CHECK((get(kExtendedFeatures).edx & ext1_edx::RDTSCP) == 0);
    Vcpu all{kIntel, 1};
    CHECK((all.get(7).ebx & leaf7_ebx::INVPCID) != 0);
    CHECK((all.get(7).ecx & leaf7_ecx::RDPID) != 0);
    CHECK((all.get(kExtendedFeatures).edx & ext1_edx::RDTSCP) != 0);
}

TEST_CASE("leaf 8000_0001h follows the vCPU's state", "[x86]") {
    Vcpu intel{kIntel, 1};
    intel.backend.enter_long_mode(0x1000);
    CHECK((intel.get(kExtendedFeatures).edx & ext1_edx::SYSCALL) != 0);
    intel.backend.state.seg(SegmentName::cs).attributes = 0xc9b;  // compatibility mode
    CHECK((intel.get(kExtendedFeatures).edx & ext1_edx::SYSCALL) == 0);
    intel.backend.enter_protected_mode();
    CHECK((intel.get(kExtendedFeatures).edx & ext1_edx::SYSCALL) == 0);
    CHECK((intel.policy.cpu().efer_allowed & EFER_SCE) != 0);
    Vcpu amd{kAmd, 1};
    CHECK((amd.get(kExtendedFeatures).edx & ext1_edx::SYSCALL) != 0);
    CHECK((amd.get(kExtendedFeatures).edx & leaf1_edx::APIC) != 0);
    CHECK((amd.policy.lookup(kExtendedFeatures, 0, amd.backend, 0, 0).edx & leaf1_edx::APIC) == 0);
}

TEST_CASE("registers may hold what CPUID offers", "[x86]") {
    Vcpu vcpu{kIntel, 1};
    const GuestCpu& cpu = vcpu.policy.cpu();
    CHECK((cpu.cr4_allowed & (CR4_VMXE | CR4_SMXE | CR4_LA57 | CR4_PKE | CR4_CET)) == 0);
    CHECK((cpu.cr4_allowed & CR4_SMAP) != 0);
    CHECK(cpu.efer_allowed == (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR));
    CHECK(cpu.physical_bits == 52);
    CHECK((vcpu.get(kAddressSizes).eax >> 8 & 0xff) == 48);
}

}  // namespace hv::x86
