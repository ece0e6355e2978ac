// SPDX-License-Identifier: MIT
#include "drivers/net/e1000_receive_ring.hpp"

#include "drivers/net/received_frame.hpp"

#include <atomic>

namespace hv::netdrv {

using Descriptor = e1000::ReceiveDescriptor;

namespace {

/// What a device that does not strip the FCS may report [8254x 13.4.22 Receive Control Register, LPE].
constexpr std::size_t kMaxLength = net::kMaxWireFrameSize + 4;

}  // namespace

Expected<E1000ReceiveRing> E1000ReceiveRing::create(DmaPool& pool) {
    DmaBuffer ring = HV_TRY(pool.allocate(kDescriptors * sizeof(Descriptor)));
    DmaBuffer buffers = HV_TRY(pool.allocate(std::size_t{kDescriptors} * kBufferSize));
    return E1000ReceiveRing{std::move(ring), std::move(buffers)};
}

void E1000ReceiveRing::attach(E1000Chip& chip) {
    for (unsigned i = 0; i < kDescriptors; ++i)
        descriptor(i) = {buffers_.address().raw + std::uint64_t{i} * kBufferSize, 0};
    next_ = unannounced_ = 0;
    in_damaged_ = false;
    chip.write64(e1000::RDBAL, ring_.address().raw);
    chip.write(e1000::RDLEN, kDescriptors * sizeof(Descriptor));
    chip.write(e1000::RDH, 0);
    // One stays the driver's, for a ring with head = tail is empty [8254x 3.2.6 Receive Descriptor Queue
    // Structure].
    chip.write(e1000::RDT, kDescriptors - 1);
}

E1000ReceiveRing::Next E1000ReceiveRing::next() {
    const std::uint64_t result = std::atomic_ref{descriptor(next_).result}.load(std::memory_order_acquire);
    if (!Descriptor::DD::test(result))
        return {Arrival::none, false, {}};
    const bool ends = Descriptor::EOP::test(result);
    if (in_damaged_) {
        in_damaged_ = !ends;
        return {Arrival::rest, false, {}};
    }
    const std::size_t length = Descriptor::Length::get(result);
    in_damaged_ = !ends;
    if (!ends || (result & Descriptor::kDamaged) != 0 || length < net::kMinFrameSize || length > kMaxLength)
        return {Arrival::damaged, false, {}};
    const bool checksum_good = Descriptor::TCPCS::test(result) && !Descriptor::IXSM::test(result) &&
                               !Descriptor::TCPE::test(result) && !Descriptor::IPE::test(result);
    return {Arrival::frame, checksum_good,
            buffers_.bytes().subspan(std::size_t{next_} * kBufferSize, length)};
}

void E1000ReceiveRing::release(E1000Chip& chip) {
    descriptor(next_) = {buffers_.address().raw + std::uint64_t{next_} * kBufferSize, 0};
    next_ = (next_ + 1) % kDescriptors;
    if (++unannounced_ >= kReceiveBatch)
        flush(chip);
}

void E1000ReceiveRing::flush(E1000Chip& chip) {
    if (unannounced_ == 0)
        return;
    unannounced_ = 0;
    // The one looked at last is now the driver's.
    chip.write(e1000::RDT, (next_ + kDescriptors - 1) % kDescriptors);
}

}  // namespace hv::netdrv
