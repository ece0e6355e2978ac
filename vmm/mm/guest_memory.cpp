// SPDX-License-Identifier: MIT
#include "vmm/mm/guest_memory.hpp"

#include "vmm/base/machine.hpp"

#include <new>
#include <utility>

namespace hv {
namespace {

constexpr unsigned kOrder2M = 9;
constexpr unsigned kOrder1G = 18;

/// Where the next granule begins.
Gpa next_granule(Gpa gpa) {
    return Gpa{align_down(gpa.raw, GuestMemory::kGranule) + GuestMemory::kGranule};
}

}  // namespace

Expected<GuestMemory> GuestMemory::create(FrameSource& frames, std::uint64_t bytes, Kind kind) {
    if (bytes == 0 || !is_aligned(bytes, kGranule))
        return Unexpected{Error::invalid_argument};
    GuestMemory memory{frames, kind};
    memory.size_ = bytes;
    const std::uint64_t end = memory.high_size() != 0 ? kHighStart + memory.high_size() : memory.low_size();
    memory.granules_.reset(new (std::nothrow) Granule[end / kGranule]);
    if (memory.granules_ == nullptr)
        return Unexpected{Error::no_memory};
    memory.granule_count_ = end / kGranule;
    HV_TRY(memory.populate(Gpa{0}, memory.low_size()));
    if (memory.high_size() != 0)
        HV_TRY(memory.populate(Gpa{kHighStart}, memory.high_size()));
    memory.clear();
    return memory;
}

Expected<void> GuestMemory::populate(Gpa start, std::uint64_t bytes) {
    const bool fixed = kind_ == Kind::fixed;
    for (std::uint64_t done = 0; done < bytes;) {
        const Gpa gpa = start + done;
        unsigned order = fixed && gpa.aligned(kPage1G) && bytes - done >= kPage1G ? kOrder1G : kOrder2M;
        if (fixed)
            HV_TRY(runs_.reserve(runs_.size() + 1));
        auto frame = frames_->allocate(order);
        if (!frame && order == kOrder1G) {
            order = kOrder2M;
            frame = frames_->allocate(order);
        }
        const Hpa hpa = HV_TRY(std::move(frame));
        if (fixed)
            HV_TRY(runs_.push({gpa, hpa, order}));  // cannot fail: the room is reserved
        const std::uint64_t length = kPageSize << order;
        for (std::uint64_t offset = 0; offset < length; offset += kGranule)
            granule(gpa + offset).base.store(machine::hva(hpa + offset), std::memory_order_relaxed);
        done += length;
    }
    return {};
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : frames_{other.frames_},
      kind_{other.kind_},
      size_{std::exchange(other.size_, 0)},
      runs_{std::move(other.runs_)},
      granules_{std::move(other.granules_)},
      granule_count_{std::exchange(other.granule_count_, 0)} {}

GuestMemory::~GuestMemory() {
    clear();
    for (const Run& run : runs_)
        frames_->free(run.hpa, run.order);
    for (std::size_t i = 0; kind_ == Kind::releasable && i < granule_count_; ++i)
        if (std::byte* base = granules_.get()[i].base.load(); is_present(base))
            frames_->free(machine::hpa(base), kOrder2M);
}

void GuestMemory::clear() {
    static_cast<void>(for_each_run([](Gpa, Hpa hpa, std::uint64_t length) -> Expected<void> {
        std::memset(machine::hva(hpa), 0, length);
        return {};
    }));
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

// --- releasable memory
// -----------------------------------------------------------------------------------------------------

std::byte* GuestMemory::take(Gpa gpa, std::size_t length) const {
    const std::uint64_t offset = gpa.raw % kGranule;
    if (kind_ == Kind::fixed || !is_ram(gpa) || length > kGranule - offset)
        return nullptr;
    Granule& wanted = granule(gpa);
    std::byte* base = wanted.base.load(std::memory_order_acquire);
    if (base != nullptr)
        return is_present(base) ? base + offset : nullptr;
    const auto frame = frames_->allocate(kOrder2M);
    if (!frame)
        return nullptr;
    auto* const fresh = machine::hva(*frame);
    std::memset(fresh, 0, kGranule);
    if (wanted.base.compare_exchange_strong(base, fresh, std::memory_order_acq_rel)) {
        absent_.fetch_sub(1, std::memory_order_relaxed);
        return fresh + offset;
    }
    frames_->free(*frame, kOrder2M);
    return is_present(base) ? base + offset : nullptr;  // another CPU was faster
}

bool GuestMemory::pin(Gpa gpa, std::uint64_t length) const {
    if (kind_ == Kind::fixed)
        return true;
    for (Gpa here = gpa; here.raw < gpa.raw + length; here = next_granule(here)) {
        // Either detach() sees the pin, or this sees that the granule is leaving.
        granule(here).pins.fetch_add(1);
        if (at(here, 1) == nullptr) {
            unpin(gpa, next_granule(here).raw - gpa.raw);
            return false;
        }
    }
    return true;
}

void GuestMemory::unpin(Gpa gpa, std::uint64_t length) const {
    if (kind_ == Kind::fixed)
        return;
    for (Gpa here = gpa; here.raw < gpa.raw + length; here = next_granule(here))
        granule(here).pins.fetch_sub(1);
}

std::byte* GuestMemory::detach(Gpa gpa) {
    Granule& leaving = granule(gpa);
    std::byte* base = leaving.base.load(std::memory_order_acquire);
    if (!is_present(base) || leaving.pins.load() != 0)
        return nullptr;
    leaving.base.store(reinterpret_cast<std::byte*>(kLeaving));  // nobody else changes what is present
    if (leaving.pins.load() != 0) {
        attach(gpa, base);
        return nullptr;
    }
    return base;
}

void GuestMemory::attach(Gpa gpa, std::byte* where) {
    granule(gpa).base.store(where);
}

void GuestMemory::release(Gpa gpa, std::byte* where) {
    frames_->free(machine::hpa(where), kOrder2M);
    absent_.fetch_add(1, std::memory_order_relaxed);
    granule(gpa).base.store(nullptr);
}

}  // namespace hv
