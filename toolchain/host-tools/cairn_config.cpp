// SPDX-License-Identifier: MIT
// cairn-config check FILE [FOLDER...]: checks a configuration and says what ./cairn has to know of it. The
// files that it names are looked for in its own folder, then in each FOLDER.
//
// Exit status 0, and on stdout one fact per line, each a word, a space and the rest:
//     vms NAME NAME...      in the order of the file
//     memory BYTES          RAM and RAM disks of all VMs that start by themselves
//     cpus N                virtual CPUs of all VMs
//     kernel|initrd|module PATH   a file to pack, as the configuration spells it; each path once
// Exit status 2, and on stderr one error per line: "FILE:LINE: MESSAGE", or "FILE: MESSAGE". Also for wrong
// arguments.
#include "vmm/config/config.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace hv::config;

class Folders final : public FileIndex {
public:
    explicit Folders(std::vector<std::filesystem::path> paths) : paths_{std::move(paths)} {}
    [[nodiscard]] bool exists(std::string_view name) const override {
        return std::any_of(paths_.begin(), paths_.end(), [name](const std::filesystem::path& folder) {
            std::error_code error;
            return std::filesystem::is_regular_file(folder / std::filesystem::path{name}, error);
        });
    }

private:
    std::vector<std::filesystem::path> paths_;
};

std::optional<std::string> read_file(const char* path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen(path, "rb"), &std::fclose};
    std::string text;
    char buffer[4096];
    while (file != nullptr) {
        const std::size_t count = std::fread(buffer, 1, sizeof buffer, file.get());
        text.append(buffer, count);
        if (count < sizeof buffer)
            break;
    }
    return file == nullptr || std::ferror(file.get()) != 0 ? std::nullopt : std::optional{std::move(text)};
}

int print_errors(const char* file, const ConfigResult& result) {
    for (const ConfigError& error : result.errors) {
        const std::string message{error.message.view()};
        if (error.line == 0)
            std::fprintf(stderr, "%s: %s\n", file, message.c_str());
        else
            std::fprintf(stderr, "%s:%u: %s\n", file, error.line, message.c_str());
    }
    return 2;
}

void print_facts(const Config& config) {
    std::printf("vms");
    std::uint64_t memory = 0;
    std::uint64_t cpus = 0;
    for (const VmConfig& vm : config.vms) {
        std::printf(" %s", std::string{vm.name}.c_str());
        memory += vm.autostart ? memory_needed(vm) : 0;
        cpus += vm.cpus;
    }
    std::printf("\nmemory %lu\ncpus %lu\n", memory, cpus);

    std::set<std::string_view> printed;
    const auto print_file = [&](const char* kind, std::string_view path) {
        if (!path.empty() && printed.insert(path).second)
            std::printf("%s %s\n", kind, std::string{path}.c_str());
    };
    for (const VmConfig& vm : config.vms) {
        print_file("kernel", vm.kernel);
        print_file("initrd", vm.initrd);
        for (const ModuleConfig& module : vm.modules)
            print_file("module", module.file);
        for (const DiskConfig& disk : vm.disks)
            if (disk.source == DiskSource::module)
                print_file("module", disk.name);
    }
}

int check(const char* file, std::span<char* const> more_folders) {
    const auto text = read_file(file);
    if (!text) {
        std::fprintf(stderr, "%s: the file cannot be read\n", file);
        return 2;
    }
    std::vector<std::filesystem::path> paths{std::filesystem::path{file}.parent_path()};
    paths.insert(paths.end(), more_folders.begin(), more_folders.end());
    const Folders folders{std::move(paths)};
    const auto result = parse_config(*text, {.files = &folders});
    if (!result) {
        std::fprintf(stderr, "%s: %s\n", file, hv::to_string(result.error()));
        return 2;
    }
    if (!result->errors.empty())
        return print_errors(file, *result);
    print_facts(result->config);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::span arguments{argv, static_cast<std::size_t>(argc)};
    if (argc < 3 || std::string_view{argv[1]} != "check") {
        std::fputs("usage: cairn-config check FILE [FOLDER...]\n", stderr);
        return 2;
    }
    return check(argv[2], arguments.subspan(3));
}
