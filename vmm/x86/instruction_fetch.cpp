// SPDX-License-Identifier: MIT
#include "vmm/x86/instruction_fetch.hpp"

#include <algorithm>

namespace hv::x86 {
namespace {

/// The bytes that are compared when a decoded instruction is used again.
constexpr std::uint64_t kCompared = 16;

InstructionFetcher::Fetched::Status status_of(Translation::Status status) {
    using Status = InstructionFetcher::Fetched::Status;
    switch (status) {
    case Translation::Status::ok: return Status::ok;
    case Translation::Status::page_fault: return Status::page_fault;
    case Translation::Status::retry: return Status::retry;
    case Translation::Status::not_memory: break;
    }
    return Status::not_memory;
}

std::uint64_t low_bytes(unsigned count) {
    return count >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (count * 8)) - 1;
}

}  // namespace

/// For length(), which knows RIP alone: only where the code segment's base leaves page offsets as they are.
void InstructionFetcher::remember_page(std::uint64_t rip, std::uint64_t linear, const std::byte* host) {
    const std::uint64_t offset = linear & (kPageSize - 1);
    if ((rip & (kPageSize - 1)) == offset)
        pages_[(rip >> kPageShift) % kPages] = {rip >> kPageShift, host - offset};
}

InstructionFetcher::Fetched InstructionFetcher::fetch(const CpuState& state) {
    const std::uint64_t rip = backend_.regs.rip;
    const CodeMode mode = code_mode(state);
    const std::uint64_t linear = linear_rip(state, mode);
    const CodeContext context = CodeContext::of(state);
    Decoded& entry = decoded_[slot_of(rip)];
    if (entry.is_at(rip) && entry.context == context && entry.is_in_place()) {
        remember_page(rip, linear, entry.host);
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(entry.bytes.data());
        return {Fetched::Status::ok, &entry.instruction, {bytes, entry.instruction.length}, linear, 0};
    }
    entry.host = nullptr;

    const Accessor accessor = context.cpl == 3 ? Accessor::user : Accessor::supervisor;
    const PagingState paging = PagingState::of(state, backend_.regs.rflags);
    std::size_t count = 0;
    for (std::uint64_t at = linear; count < buffer_.size(); at = linear + count) {
        if (mode != CodeMode::bits64)
            at = static_cast<std::uint32_t>(at);
        const std::size_t wanted = std::min(buffer_.size() - count, kPageSize - (at & (kPageSize - 1)));
        const Translation where =
            walk(paging, cpu_, memory_, at, Access::execute, accessor, count == 0 ? &entry.trace : nullptr);
        const std::byte* host =
            where.status == Translation::Status::ok ? memory_.at(where.gpa, wanted) : nullptr;
        if (host == nullptr) {
            const auto status = where.status == Translation::Status::ok ? Fetched::Status::not_memory
                                                                        : status_of(where.status);
            return {status, nullptr, std::span{buffer_}.first(count), at, where.error_code};
        }
        std::memcpy(buffer_.data() + count, host, wanted);
        const bool first = count == 0;
        count += wanted;
        const std::span<const std::uint8_t> bytes = std::span{buffer_}.first(count);
        const DecodeStatus decoded = decode(bytes, mode, instruction_);
        if (decoded == DecodeStatus::need_more)
            continue;
        if (first)
            remember_page(rip, linear, host);
        if (decoded == DecodeStatus::invalid)
            return {Fetched::Status::invalid, nullptr, bytes, linear, 0};
        if (first && (linear & (kPageSize - 1)) <= kPageSize - kCompared) {
            const unsigned length = instruction_.length;
            entry.rip = rip;
            entry.context = context;
            entry.host = host;
            entry.mask = {low_bytes(length), length > 8 ? low_bytes(length - 8) : 0};
            entry.bytes = {};
            std::memcpy(entry.bytes.data(), buffer_.data(), length);
            entry.instruction = instruction_;
        }
        return {Fetched::Status::ok, &instruction_, bytes, linear, 0};
    }
    return {Fetched::Status::invalid, nullptr, buffer_, linear, 0};
}

unsigned InstructionFetcher::length_by_walk(Operation expected) {
    CpuState state;
    backend_.get_state(state, RegSet::control | RegSet::segments);
    const Fetched fetched = fetch(state);
    if (fetched.status != Fetched::Status::ok)
        return 0;
    const Operation found = fetched.instruction->operation;
    const auto hypercall = [](Operation op) { return op == Operation::vmcall || op == Operation::vmmcall; };
    return found == expected || (hypercall(found) && hypercall(expected)) ? fetched.instruction->length : 0;
}

}  // namespace hv::x86
