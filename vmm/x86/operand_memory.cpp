// SPDX-License-Identifier: MIT
#include "vmm/x86/operand_memory.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/x86/alu.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

namespace hv::x86 {
namespace {

std::uint64_t read_ram(const std::byte* at, unsigned size) {
    switch (size) {  // one access each, as the guest's other processors may look on
    case 1: return load<std::uint8_t>(at);
    case 2: return load<std::uint16_t>(at);
    case 4: return load<std::uint32_t>(at);
    case 8: return load<std::uint64_t>(at);
    default: {
        std::uint64_t value = 0;
        std::memcpy(&value, at, size);
        return value;
    }
    }
}

void write_ram(std::byte* at, unsigned size, std::uint64_t value) {
    switch (size) {
    case 1: store(at, static_cast<std::uint8_t>(value)); break;
    case 2: store(at, static_cast<std::uint16_t>(value)); break;
    case 4: store(at, static_cast<std::uint32_t>(value)); break;
    case 8: store(at, value); break;
    default: std::memcpy(at, &value, size); break;
    }
}

template <class T>
bool replace_ram(std::byte* at, std::uint64_t expected, std::uint64_t value) {
    auto old = static_cast<T>(expected);
    return std::atomic_ref{*reinterpret_cast<T*>(at)}.compare_exchange_strong(old, static_cast<T>(value));
}

/// The largest access of 1, 2, 4 or 8 bytes that fits.
unsigned widest(unsigned size) {
    return std::bit_floor(size);
}

}  // namespace

Outcome OperandMemory::fail(std::uint8_t vector) {
    const bool error_code = exception_has_error_code(vector) && (state_->cr0 & CR0_PE) != 0;
    exception_ = error_code ? Event::exception(vector, 0) : Event::exception(vector);
    return Outcome::exception;
}

Outcome OperandMemory::fail(std::uint8_t vector, std::uint16_t error_code) {
    exception_ = Event::exception(vector, error_code);
    return Outcome::exception;
}

/// [sdm3 5.3 Limit Checking], [sdm3 5.4 Type Checking]
bool OperandMemory::segment_allows(const Segment& segment, std::uint64_t offset, unsigned size,
                                   Access access) const {
    const std::uint64_t last = offset + size - 1;
    const bool code = (segment.attributes & 8) != 0;
    const bool expands_down = !code && (segment.attributes & 4) != 0;
    if (expands_down) {
        if (offset <= segment.limit || last > (segment.big() ? 0xffff'ffffU : 0xffffU))
            return false;
    } else if (last > segment.limit) {
        return false;
    }
    if ((state_->cr0 & CR0_PE) == 0 || (rflags_ & RFLAGS_VM) != 0)
        return true;
    const bool bit1 = (segment.attributes & 2) != 0;  // data: writable, code: readable
    return segment.present() && (access == Access::write ? !code && bit1 : !code || bit1);
}

Outcome OperandMemory::translate(std::uint64_t linear, unsigned size, Access access, Accessor accessor,
                                 Place::Piece& piece) {
    // What the exit says that the access was has passed the guest's page tables already; a read that is to be
    // followed by a write has not.
    if (fault_ != nullptr && fault_->gpa.page_offset() == (linear & (kPageSize - 1)) &&
        (access == Access::read || fault_->write)) {
        piece = {memory_.at(fault_->gpa, size), fault_->gpa, size};
        return Outcome::ok;
    }
    const Translation result =
        walk(PagingState::of(*state_, rflags_), cpu_, memory_, linear, access, accessor);
    switch (result.status) {
    case Translation::Status::ok: break;
    case Translation::Status::page_fault:
        exception_ = Event::exception(EXCEPTION_PF, result.error_code);
        fault_address_ = linear;
        return Outcome::exception;
    case Translation::Status::retry: return Outcome::retry;
    case Translation::Status::not_memory: return Outcome::unsupported;
    }
    piece = {memory_.at(result.gpa, size), result.gpa, size};
    // RAM that is absent, and cannot be had at the moment, is no device.
    if (piece.host == nullptr && memory_.is_ram(result.gpa)) [[unlikely]]
        return Outcome::retry;
    return Outcome::ok;
}

Outcome OperandMemory::resolve(SegmentName segment, std::uint64_t offset, unsigned size, Access access,
                               Place& place) {
    const std::uint64_t address = linear(segment, offset);
    const bool allowed = mode_ == CodeMode::bits64
                             ? is_canonical(address) && is_canonical(address + size - 1)
                             : segment_allows(state_->seg(segment), offset, size, access);
    if (!allowed)
        return fail(segment == SegmentName::ss ? EXCEPTION_SS : EXCEPTION_GP);
    if (breakpoints_ != nullptr) [[unlikely]]
        breakpoints_->note_memory(address, size, access);
    return translate_pages(address, size, access, state_->cpl() == 3 ? Accessor::user : Accessor::supervisor,
                           place);
}

Outcome OperandMemory::resolve_system(std::uint64_t linear, unsigned size, Access access, Place& place) {
    return translate_pages(linear, size, access, Accessor::implicit_supervisor, place);
}

Outcome OperandMemory::translate_pages(std::uint64_t address, unsigned size, Access access, Accessor accessor,
                                       Place& place) {
    const auto room = static_cast<unsigned>(kPageSize - (address & (kPageSize - 1)));
    if (size <= room) [[likely]] {
        place.count = 1;
        return translate(address, size, access, accessor, place.pieces[0]);
    }
    fault_ = nullptr;  // the exit's address may be that of either page
    place.count = 2;
    if (const Outcome first = translate(address, room, access, accessor, place.pieces[0]);
        first != Outcome::ok)
        return first;
    std::uint64_t next = address + room;
    if (mode_ != CodeMode::bits64)
        next = static_cast<std::uint32_t>(next);
    return translate(next, size - room, access, accessor, place.pieces[1]);
}

std::uint64_t OperandMemory::read_device(Gpa gpa, unsigned size) {
    std::uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        const unsigned part = widest(size - done);
        value |= cut(bus_.mmio_read(gpa + done, part), part) << (done * 8);
        done += part;
    }
    return value;
}

void OperandMemory::write_device(Gpa gpa, unsigned size, std::uint64_t value) {
    for (unsigned done = 0; done < size;) {
        const unsigned part = widest(size - done);
        bus_.mmio_write(gpa + done, part, cut(value >> (done * 8), part));
        done += part;
    }
}

std::uint64_t OperandMemory::read(const Place& place) {
    std::uint64_t value = 0;
    unsigned done = 0;
    for (unsigned i = 0; i < place.count; ++i) {
        const Place::Piece& piece = place.pieces[i];
        value |=
            (piece.host != nullptr ? read_ram(piece.host, piece.size) : read_device(piece.gpa, piece.size))
            << (done * 8);
        done += piece.size;
    }
    return value;
}

void OperandMemory::write(const Place& place, std::uint64_t value) {
    unsigned done = 0;
    for (unsigned i = 0; i < place.count; ++i) {
        const Place::Piece& piece = place.pieces[i];
        if (piece.host != nullptr)
            write_ram(piece.host, piece.size, value >> (done * 8));
        else
            write_device(piece.gpa, piece.size, cut(value >> (done * 8), piece.size));
        done += piece.size;
    }
}

void OperandMemory::read_bytes(const Place& place, void* out) {
    auto* to = static_cast<std::byte*>(out);
    for (unsigned i = 0; i < place.count; ++i) {
        const Place::Piece& piece = place.pieces[i];
        for (unsigned done = 0; done < piece.size; done += 8) {
            const unsigned size = std::min(piece.size - done, 8U);
            const std::uint64_t value = piece.host != nullptr ? read_ram(piece.host + done, size)
                                                              : read_device(piece.gpa + done, size);
            std::memcpy(to + done, &value, size);
        }
        to += piece.size;
    }
}

void OperandMemory::write_bytes(const Place& place, const void* in) {
    const auto* from = static_cast<const std::byte*>(in);
    for (unsigned i = 0; i < place.count; ++i) {
        const Place::Piece& piece = place.pieces[i];
        for (unsigned done = 0; done < piece.size; done += 8) {
            const unsigned size = std::min(piece.size - done, 8U);
            std::uint64_t value = 0;
            std::memcpy(&value, from + done, size);
            if (piece.host != nullptr)
                write_ram(piece.host + done, size, value);
            else
                write_device(piece.gpa + done, size, value);
        }
        from += piece.size;
    }
}

bool OperandMemory::replace(const Place& place, std::uint64_t expected, std::uint64_t value) {
    const Place::Piece& piece = place.pieces[0];
    if (place.count == 1 && piece.host != nullptr && is_aligned(piece.gpa.raw, piece.size)) {
        switch (piece.size) {
        case 1: return replace_ram<std::uint8_t>(piece.host, expected, value);
        case 2: return replace_ram<std::uint16_t>(piece.host, expected, value);
        case 4: return replace_ram<std::uint32_t>(piece.host, expected, value);
        default: return replace_ram<std::uint64_t>(piece.host, expected, value);
        }
    }
    write(place, value);
    return true;
}

}  // namespace hv::x86
