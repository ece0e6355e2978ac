// SPDX-License-Identifier: MIT
// An NVMe controller behind its registers: it fetches commands from queues in the arena, walks PRPs and moves
// data of namespaces that it keeps in memory. It notes what a driver must not do, and misbehaves as tests
// want it to.
#pragma once

#include "drivers/block/nvme_defs.hpp"
#include "vmm/base/device_registers.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hv::fake {

class NvmeController final : public DeviceRegisters {
public:
    struct Namespace {
        std::vector<std::byte> contents;
        unsigned block_shift{9};
        std::uint16_t metadata_size{0};
        std::uint8_t format{0};  ///< FLBAS
        std::uint8_t last_format{0};
        bool write_protected{false};
        std::uint8_t features{0};           ///< NSFEAT
        std::uint8_t deallocation{0};       ///< DLFEAT
        std::uint16_t atomic_blocks{0};     ///< NAWUPF
        std::uint16_t preferred_blocks{0};  ///< NPWG
        std::array<std::uint8_t, 16> nguid{};
        std::array<std::uint8_t, 8> eui64{};
    };
    struct Command {
        std::uint16_t queue;
        block::nvme::Submission entry;
    };

    NvmeController() { add_namespace(1, 4096); }
    Namespace& add_namespace(std::uint32_t id, std::uint64_t blocks, unsigned block_shift = 9);

    // --- what it is
    // -----------------------------------------------------------------------------------------
    std::uint64_t capabilities{1023 | std::uint64_t{2} << 24 | std::uint64_t{1} << 37};
    std::uint32_t version{0x1'0400};
    std::uint32_t ready_timeouts{0};
    unsigned queues{64};           ///< it grants at most
    std::uint8_t max_transfer{0};  ///< MDTS
    std::uint8_t write_cache{1};
    std::uint16_t optional_commands{0x0c};
    std::uint32_t shutdown_latency_us{0};
    std::uint8_t zeroes_limit{0};
    std::uint32_t discard_limit{0};
    std::uint16_t atomic_blocks{0};  ///< AWUPF
    bool tells_of_namespaces{false};
    std::map<std::uint32_t, Namespace> namespaces;
    std::size_t window{0x4000};

    // --- how it behaves
    // -------------------------------------------------------------------------------------
    unsigned polls_until_ready{0};  ///< or until it is not any more
    bool never_ready{false};
    bool always_ready{false};
    bool fatal{false};  ///< until it is reset
    bool fatal_when_enabled{false};
    bool gone{false};
    bool ignores_shutdown{false};
    bool holds_admin{false};  ///< commands wait for finish()
    bool holds_io{false};
    /// Status of a command (DNR << 14 | SCT << 8 | SC), instead of doing it.
    std::function<std::optional<std::uint16_t>(const Command&)> verdict;

    /// Ends the `index`th of the commands that wait.
    void finish(std::size_t index = 0);
    void finish_all();
    /// A namespace gets another size, of which a driver that asked for it is told.
    void resize(std::uint32_t id, std::uint64_t blocks);
    /// An asynchronous event, for which somebody waits.
    void tell(std::uint32_t event);
    [[nodiscard]] bool event_awaited() const { return event_command_.has_value(); }
    /// Puts any completion into the completion queue of submission queue `queue`.
    void post(std::uint16_t queue, std::uint16_t submission_queue, std::uint16_t command,
              std::uint16_t status = 0, std::uint32_t result = 0);

    // --- what it saw
    // ----------------------------------------------------------------------------------------
    std::vector<std::string> violations;
    std::vector<Command> seen;
    std::deque<Command> waiting;
    std::map<unsigned, unsigned> doorbells;   ///< writes, by number
    std::map<unsigned, unsigned> interrupts;  ///< by vector
    unsigned status_reads{0};
    unsigned enabled_times{0};
    [[nodiscard]] std::uint32_t configuration() const { return configuration_; }
    [[nodiscard]] bool knows_queue(std::uint16_t id) const { return submissions_.contains(id); }
    /// Of I/O queue `id`: entries, interrupt vector.
    [[nodiscard]] unsigned entries(std::uint16_t id) const { return submissions_.at(id).entries; }
    [[nodiscard]] unsigned vector(std::uint16_t id) const { return completions_.at(id).vector; }
    [[nodiscard]] std::vector<block::nvme::Submission> io(std::uint8_t opcode) const;

    [[nodiscard]] std::size_t size() const override { return window; }
    [[nodiscard]] std::uint8_t read8(std::size_t offset) override;
    [[nodiscard]] std::uint16_t read16(std::size_t offset) override;
    [[nodiscard]] std::uint32_t read32(std::size_t offset) override;
    void write8(std::size_t offset, std::uint8_t value) override;
    void write16(std::size_t offset, std::uint16_t value) override;
    void write32(std::size_t offset, std::uint32_t value) override;

private:
    struct SubmissionQueue {
        std::uint64_t address;
        unsigned entries;
        std::uint16_t completions;
        unsigned head{0};
    };
    struct CompletionQueue {
        std::uint64_t address;
        unsigned entries;
        unsigned vector;
        unsigned tail{0};
        unsigned head{0};
        bool phase{true};
    };

    void violation(const char* what) { violations.emplace_back(what); }
    std::uint32_t status();
    void configure(std::uint32_t value);
    void ring(std::size_t offset, std::uint32_t value);
    void fetch(std::uint16_t queue, unsigned tail);
    void execute(const Command& command);
    std::uint16_t administer(const block::nvme::Submission& entry, std::uint32_t& result);
    std::uint16_t set_feature(const block::nvme::Submission& entry, std::uint32_t& result);
    std::uint16_t read_log(const block::nvme::Submission& entry);
    void tell_of_namespaces();
    std::uint16_t identify(const block::nvme::Submission& entry);
    std::uint16_t create_queue(const block::nvme::Submission& entry);
    std::uint16_t transfer(const block::nvme::Submission& entry);
    std::uint16_t change_ranges(const block::nvme::Submission& entry, Namespace& on);
    std::vector<std::span<std::byte>> walk(const block::nvme::Submission& entry, std::size_t bytes);

    std::map<std::uint16_t, SubmissionQueue> submissions_;
    std::map<std::uint16_t, CompletionQueue> completions_;
    std::map<std::size_t, std::uint32_t> admin_registers_;  ///< AQA, ASQ, ACQ
    std::uint32_t configuration_{0};
    bool ready_{false};
    unsigned polls_left_{0};
    unsigned granted_{0};
    bool shut_down_{false};
    bool notices_wanted_{false};
    bool notice_due_{false};    ///< namespaces have changed
    bool notice_given_{false};  ///< and were not read since
    std::vector<std::uint32_t> changed_;
    std::optional<std::uint16_t> event_command_;
};

}  // namespace hv::fake
