// SPDX-License-Identifier: MIT
#include "vmm/mm/guest_memory.hpp"

#include "vmm/base/machine.hpp"

namespace hv {
namespace {

constexpr unsigned kOrder2M = 9;
constexpr unsigned kOrder1G = 18;

}  // namespace

Expected<GuestMemory> GuestMemory::create(FrameSource& frames, std::uint64_t bytes) {
    if (bytes == 0 || !is_aligned(bytes, kGranule))
        return Unexpected{Error::invalid_argument};
    GuestMemory memory{frames};
    memory.size_ = bytes;
    HV_TRY(memory.populate(Gpa{0}, memory.low_size()));
    if (memory.high_size() != 0)
        HV_TRY(memory.populate(Gpa{kHighStart}, memory.high_size()));
    memory.clear();
    return memory;
}

Expected<void> GuestMemory::populate(Gpa start, std::uint64_t bytes) {
    HV_TRY(granules_.resize((start.raw + bytes) / kGranule));
    for (std::uint64_t done = 0; done < bytes;) {
        const Gpa gpa = start + done;
        unsigned order = gpa.aligned(kPage1G) && bytes - done >= kPage1G ? kOrder1G : kOrder2M;
        HV_TRY(runs_.reserve(runs_.size() + 1));
        auto frame = frames_->allocate(order);
        if (!frame && order == kOrder1G) {
            order = kOrder2M;
            frame = frames_->allocate(order);
        }
        const Hpa hpa = HV_TRY(std::move(frame));
        HV_TRY(runs_.push({gpa, hpa, order}));  // cannot fail: the room is reserved
        const std::uint64_t length = kPageSize << order;
        for (std::uint64_t offset = 0; offset < length; offset += kGranule)
            granules_[(gpa.raw + offset) / kGranule] = machine::hva(hpa + offset);
        done += length;
    }
    return {};
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : frames_{other.frames_},
      size_{std::exchange(other.size_, 0)},
      runs_{std::move(other.runs_)},
      granules_{std::move(other.granules_)} {}

GuestMemory::~GuestMemory() {
    clear();
    for (const Run& run : runs_)
        frames_->free(run.hpa, run.order);
}

void GuestMemory::clear() {
    for (const Run& run : runs_)
        std::memset(machine::hva(run.hpa), 0, kPageSize << run.order);
}

bool GuestMemory::contains(Gpa gpa, std::uint64_t length) const {
    const auto inside = [&](std::uint64_t start, std::uint64_t size) {
        return gpa.raw >= start && gpa.raw - start <= size && length <= size - (gpa.raw - start);
    };
    return inside(0, low_size()) || inside(kHighStart, high_size());
}

Expected<void> GuestMemory::read(Gpa gpa, std::span<std::byte> out) const {
    return for_each_piece(gpa, out.size(), [&](std::span<std::byte> piece) {
        std::memcpy(out.data(), piece.data(), piece.size());
        out = out.subspan(piece.size());
        return true;
    });
}

Expected<void> GuestMemory::write(Gpa gpa, std::span<const std::byte> in) const {
    return for_each_piece(gpa, in.size(), [&](std::span<std::byte> piece) {
        std::memcpy(piece.data(), in.data(), piece.size());
        in = in.subspan(piece.size());
        return true;
    });
}

Expected<void> GuestMemory::fill(Gpa gpa, std::byte value, std::uint64_t length) const {
    return for_each_piece(gpa, length, [&](std::span<std::byte> piece) {
        std::memset(piece.data(), static_cast<int>(value), piece.size());
        return true;
    });
}

}  // namespace hv
