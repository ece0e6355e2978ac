// SPDX-License-Identifier: MIT
// A guest's memory, and images to load into it.
#pragma once

#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/bytes_builder.hpp"
#include "vmm/loader/loader.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <string>
#include <vector>

namespace hv::loader {

inline constexpr std::uint32_t kPtLoad = 1;
inline constexpr std::uint32_t kPtNote = 4;

class Guest {
public:
    explicit Guest(std::uint64_t bytes = 64 * kMiB)
        : memory{std::move(*GuestMemory::create(frames, bytes))} {}

    [[nodiscard]] std::vector<std::byte> bytes(std::uint64_t at, std::size_t size) const {
        std::vector<std::byte> out(size);
        REQUIRE(memory.read(Gpa{at}, out));
        return out;
    }
    template <class T>
    [[nodiscard]] T get(std::uint64_t at) const {
        return *memory.load<T>(Gpa{at});
    }
    [[nodiscard]] std::string text(std::uint64_t at) const {
        std::string out;
        for (char c = get<char>(at); c != 0; c = get<char>(++at))
            out += c;
        return out;
    }

    fake::ArenaFrames frames;
    GuestMemory memory;
};

/// ELF files, a segment at a time.
class ElfBuilder {
public:
    struct Segment {
        std::uint32_t type;
        std::uint64_t virtual_address, physical_address, memory_size;
        std::vector<std::byte> bytes;
        std::uint64_t alignment{4};
    };

    explicit ElfBuilder(bool is_64) : is_64_{is_64} {}
    ElfBuilder& entry(std::uint64_t value) {
        entry_ = value;
        return *this;
    }
    ElfBuilder& segment(Segment segment) {
        segments_.push_back(std::move(segment));
        return *this;
    }
    ElfBuilder& load(std::uint64_t address, std::string_view contents, std::uint64_t memory_size = 0) {
        const auto bytes = std::as_bytes(std::span{contents});
        return segment({kPtLoad,
                        address,
                        address,
                        std::max<std::uint64_t>(memory_size, contents.size()),
                        {bytes.begin(), bytes.end()}});
    }
    ElfBuilder& pvh_note(std::uint64_t address) {
        fake::BytesBuilder note;
        note.u32(4).u32(4).u32(7).text("GNU").u8(0).u32(0);  // somebody else's
        note.u32(4).u32(8).u32(18).text("Xen").u8(0).u64(address);
        return segment({kPtNote, 0, 0, note.size(), note.bytes()});
    }
    [[nodiscard]] std::vector<std::byte> build() const {
        fake::BytesBuilder file;
        const std::size_t header = is_64_ ? 64 : 52;
        const std::size_t program_header = is_64_ ? 56 : 32;
        file.u8(0x7f).text("ELF").u8(is_64_ ? 2 : 1).u8(1).u8(1).fill_to(16);
        file.u16(2).u16(is_64_ ? 62 : 3).u32(1);
        const auto word = [&](std::uint64_t value) { is_64_ ? file.u64(value) : file.u32(value); };
        word(entry_);
        word(header);
        word(0);
        file.u32(0).u16(header).u16(program_header).u16(segments_.size()).u16(0).u16(0).u16(0);
        std::size_t offset = header + program_header * segments_.size();
        for (const Segment& each : segments_) {
            file.u32(each.type);
            if (is_64_)
                file.u32(7);
            word(offset);
            word(each.virtual_address);
            word(each.physical_address);
            word(each.bytes.size());
            word(each.memory_size);
            if (!is_64_)
                file.u32(7);
            word(each.alignment);
            offset += each.bytes.size();
        }
        for (const Segment& each : segments_)
            file.append(each.bytes);
        return file.bytes();
    }

private:
    bool is_64_;
    std::uint64_t entry_{0};
    std::vector<Segment> segments_;
};

/// What all protected-mode protocols promise.
inline void check_protected_mode(const Guest& guest, const EntryState& state) {
    CHECK(state.cpu.cr0 == 0x11);
    CHECK(state.cpu.cr3 == 0);
    CHECK(state.cpu.cr4 == 0);
    CHECK(state.cpu.efer == 0);
    CHECK(state.regs.rflags == 2);
    const Segment& code = state.cpu.seg(SegmentName::cs);
    CHECK(code.attributes == 0xc9b);
    CHECK(code.limit == 0xffff'ffff);
    CHECK(code.base == 0);
    for (const SegmentName name : {SegmentName::ds, SegmentName::es, SegmentName::ss}) {
        CHECK(state.cpu.seg(name).attributes == 0xc93);
        CHECK(state.cpu.seg(name).limit == 0xffff'ffff);
        CHECK(state.cpu.seg(name).base == 0);
    }
    CHECK(state.cpu.tr.attributes == 0x8b);
    CHECK(state.cpu.tr.limit == 0x67);
    // The descriptors that the selectors name say the same.
    CHECK(guest.get<std::uint64_t>(state.cpu.gdtr.base + code.selector) == 0x00cf'9b00'0000'ffff);
    CHECK(guest.get<std::uint64_t>(state.cpu.gdtr.base + state.cpu.seg(SegmentName::ds).selector) ==
          0x00cf'9300'0000'ffff);
}

}  // namespace hv::loader
