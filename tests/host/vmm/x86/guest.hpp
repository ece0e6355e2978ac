// SPDX-License-Identifier: MIT
// A guest with 4 MiB of RAM, page tables that tests fill, and a bus that records what reaches it.
#pragma once

#include "fakes/arena_frames.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/emulator.hpp"

#include <array>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace hv::x86 {

/// Two pages of device memory that keep what is written, and ports that count up.
class RecordingBus final : public GuestBus {
public:
    static constexpr std::uint64_t kBase = 0xd000'0000;

    std::uint64_t mmio_read(Gpa gpa, unsigned size) override {
        ++accesses;
        last_gpa = gpa;
        last_size = size;
        if (gpa.raw < kBase || gpa.raw - kBase + size > bytes.size())
            return ~std::uint64_t{0};
        std::uint64_t value = 0;
        std::memcpy(&value, bytes.data() + (gpa.raw - kBase), size);
        return value;
    }
    void mmio_write(Gpa gpa, unsigned size, std::uint64_t value) override {
        ++accesses;
        last_gpa = gpa;
        last_size = size;
        if (gpa.raw < kBase || gpa.raw - kBase + size > bytes.size())
            return;
        std::memcpy(bytes.data() + (gpa.raw - kBase), &value, size);
    }
    std::uint64_t port_read(std::uint16_t, unsigned) override { return next_port_value++; }
    void port_write(std::uint16_t port, unsigned size, std::uint64_t value) override {
        port_writes.push_back({port, size, value});
    }

    struct PortWrite {
        std::uint16_t port;
        unsigned size;
        std::uint64_t value;
    };
    std::array<std::uint8_t, 2 * kPageSize> bytes{};
    std::vector<PortWrite> port_writes;
    std::uint64_t next_port_value{0x11};
    unsigned accesses{0};
    Gpa last_gpa{};
    unsigned last_size{0};
};

struct Guest {
    static constexpr std::uint64_t kRoot = 0x1000;
    static constexpr std::uint64_t kPresent = 1, kWritable = 2, kUser = 4;

    Guest() { cpu.efer_allowed = 0xd01; }

    /// Maps one 4 KiB page in the 4-level tables at kRoot; tables are writable and open to users.
    void map(std::uint64_t linear, std::uint64_t gpa, std::uint64_t flags) {
        std::uint64_t table = kRoot;
        for (unsigned shift = 39; shift > 12; shift -= 9) {
            const Gpa slot{table + (linear >> shift & 511) * 8};
            auto entry = memory.load<std::uint64_t>(slot).value();
            if (entry == 0) {
                entry = next_table | kPresent | kWritable | kUser;
                next_table += kPageSize;
                memory.store(slot, entry).value();
            }
            table = entry & 0x000f'ffff'ffff'f000;
        }
        memory.store(Gpa{table + (linear >> 12 & 511) * 8}, gpa | flags).value();
    }
    void poke(std::uint64_t gpa, std::initializer_list<int> bytes) {
        for (const int byte : bytes)
            memory.store(Gpa{gpa++}, static_cast<std::uint8_t>(byte)).value();
    }

    fake::ArenaFrames frames{};
    GuestMemory memory{GuestMemory::create(frames, 2 * kPage2M).value()};
    std::uint64_t next_table{kRoot + kPageSize};
    GuestCpu cpu{.physical_bits = 40, .has_1g_pages = true};
    fake::FakeVcpuBackend vcpu;
    RecordingBus bus;
    EventQueue events;
    InstructionFetcher fetcher{cpu, vcpu, memory};
    Emulator emulator{cpu, vcpu, memory, bus, fetcher, events};
};

}  // namespace hv::x86
