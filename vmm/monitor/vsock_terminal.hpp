// SPDX-License-Identifier: MIT
// Makes the terminal the other end of a stream to a guest's socket: bytes pass as they are, both ways. One
// connection at a time has the line, and ends when it loses it. A guest that says more than the line carries
// waits for credit; nothing is lost.
#pragma once

#include "vmm/base/byte_ring.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/text.hpp"
#include "vmm/monitor/console_channel.hpp"
#include "vmm/virtio/vsock_connection.hpp"
#include "vmm/virtio/vsock_service.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hv {

namespace virtio {
class VirtioVsock;
}

class VsockTerminal final : private virtio::VsockService, private ConsoleInput {
public:
    /// `mux` outlives the terminal. Boot CPU.
    explicit VsockTerminal(ConsoleMux& mux) : mux_{mux} {}

    /// Begins a connection to a port of the guest of `vm`, and gives it the line. An earlier one ends.
    /// `device` may go away only on the boot CPU. Errors as VirtioVsock::connect().
    Expected<void> connect(std::string_view vm, virtio::VirtioVsock& device, std::uint32_t port);
    /// Carries what there is to carry, and says how a connection ended. To be called whenever the console was
    /// serviced, which a connection that ends asks for.
    void service();

private:
    /// So much waits for the line at most while the guest goes on: more than a writer hands to the line by
    /// himself, so that the console is serviced once it has been shown, and the guest goes on.
    static constexpr std::size_t kShown = 4096;
    static constexpr std::size_t kTyped = 256;

    struct State {
        ByteRing<kTyped> typed;
        /// The one that has the line; others have yet to hear from their guests that they are over.
        const virtio::VsockConnection* connection{nullptr};
        bool leaving{false};
        std::optional<virtio::VsockEnd> end;  ///< of the one that had it
    };

    // VsockService
    bool accept(virtio::VsockConnection& connection) override;
    void ready(virtio::VsockConnection& connection) override;
    void closed(virtio::VsockConnection& connection, virtio::VsockEnd end) override;
    // ConsoleInput
    bool receive(char c) override;

    [[nodiscard]] bool has_line(const virtio::VsockConnection& connection) const;
    /// Shows what the guest sent, until so many characters wait to be shown.
    void show(virtio::VsockConnection& connection, std::size_t most);
    [[nodiscard]] std::optional<virtio::VsockEnd> end() const;
    /// Ends the connection, whose channel no longer has the line.
    void leave();

    ConsoleMux& mux_;
    /// The most that may wait, and at the end what the guest sent beyond it, and a line that says so.
    std::array<char, 16384> buffer_{};
    static_assert(kShown + virtio::VsockConnection::kBufferSize + 128 <= sizeof(buffer_));
    TextBuffer<64> name_;
    virtio::VirtioVsock* device_{nullptr};  ///< there until end()
    /// Of a connection; used under the device's lock, too, until the connection has the line no more.
    std::optional<ConsoleChannel> channel_;
    Guarded<State, Rank::leaf> state_;
};

}  // namespace hv
