// SPDX-License-Identifier: MIT
// The console device: one port, whose output goes to a CharSink and whose input waits in a bounded queue
// until the driver has buffers for it. [virtio1.2 5.3 Console Device] Left out: several ports, the console's
// size.
#pragma once

#include "vmm/base/byte_ring.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/virtio/queue_worker.hpp"
#include "vmm/virtio/virtio_device.hpp"

#include <array>
#include <cstdint>
#include <memory>

namespace hv::virtio {

inline constexpr std::uint64_t VIRTIO_CONSOLE_F_EMERG_WRITE = feature(2);  // [virtio1.2 5.3.3 Feature bits]

class VirtioConsole final : public VirtioDevice, private QueueClient {
public:
    static constexpr unsigned kReceiveQueue = 0;
    static constexpr unsigned kTransmitQueue = 1;
    static constexpr std::size_t kInputSize = 1024;    ///< characters that wait for the driver
    static constexpr std::uint64_t kTurnBytes = 4096;  ///< of output, after which a timer goes on

    /// All outlive the device. Error::no_memory.
    static Expected<std::unique_ptr<VirtioConsole>> create(CharSink& sink, const GuestMemory& memory,
                                                           Clock& clock);
    ~VirtioConsole() override;

    [[nodiscard]] std::uint16_t device_id() const override { return VIRTIO_ID_CONSOLE; }
    [[nodiscard]] std::uint64_t features() const override { return VIRTIO_CONSOLE_F_EMERG_WRITE; }
    [[nodiscard]] unsigned queue_count() const override { return 2; }
    /// Nothing that is there without the features that are left out.
    [[nodiscard]] std::uint64_t read_config(std::uint64_t, unsigned) const override { return 0; }
    void write_config(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override;
    void stop() override;
    void queue_notified(unsigned queue) override;

    /// Whether a driver is there to take input. Any CPU, no lock held, as receive().
    [[nodiscard]] bool takes_input();
    /// A character that was typed. False: the queue is full, offer it again later.
    bool receive(char character);

private:
    struct Input {
        explicit Input(const GuestMemory& memory) : ring{memory} {}
        Virtqueue ring;
        bool live{false};
        ByteRing<kInputSize> waiting;
        std::array<Piece, 16> pieces{};
    };
    struct Outcome {
        bool interrupt{false};
        bool broken{false};
    };

    VirtioConsole(CharSink& sink, const GuestMemory& memory, Clock& clock)
        : sink_{sink}, clock_{clock}, output_{*this, kTurnBytes, memory, clock}, input_{memory} {}
    Step next(unsigned queue, Virtqueue& ring, Effort& effort) override;
    /// Puts what waits into the driver's buffers.
    void deliver();
    Outcome deliver(Input& input);
    static void fill(Input& input, const Chain& chain);
    void conclude(Outcome outcome);

    CharSink& sink_;
    Clock& clock_;
    MemberTimer<VirtioConsole, &VirtioConsole::deliver> retry_{*this};
    // Whoever has the turn of output_:
    std::uint64_t printed_{0};  ///< bytes of the chain at hand
    std::array<Piece, Virtqueue::kMaxPieces> pieces_{};
    QueueWorker output_;
    Guarded<Input, Rank::device_rx> input_;
};

}  // namespace hv::virtio
