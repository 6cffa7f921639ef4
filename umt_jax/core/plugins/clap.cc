// The plug-in for hosts of CLAP (https://cleveraudio.org).

#include <clap/entry.h>
#include <clap/ext/audio-ports.h>
#include <clap/ext/latency.h>
#include <clap/ext/params.h>
#include <clap/ext/state.h>
#if __has_include(<clap/factory/plugin-factory.h>)
#include <clap/factory/plugin-factory.h>
#else  // Before version 1.2.
#include <clap/plugin-factory.h>
#endif

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "umt_jax/core/plugins/engine.h"

#ifndef UMT_JAX_VERSION
#define UMT_JAX_VERSION ""
#endif

namespace {

namespace fs = std::filesystem;

constexpr char kDefaultModel[] = "model.safetensors", kStateBegins[] = "umt_jax 1\n";
constexpr size_t kMostState = 1 << 16;

// Debian's headers lack the extension clap.render.
struct Render {
  bool (*has_hard_realtime_requirement)(const clap_plugin_t*);
  bool (*set)(const clap_plugin_t*, int32_t mode);
};
constexpr char kRender[] = "clap.render";
constexpr int32_t kOffline = 1;

enum Param { kDomain, kTemperature, kWet, kLevel, kModel, kDropouts, kNumParams };
constexpr int kNumKept = kModel;  // Those before it are kept as numbers.

struct ParamInfo {
  const char* name;  // In the state, too.
  clap_param_info_flags flags;
  double least, most, initial;
};
// How many domains and models there are, the plug-in knows.
constexpr ParamInfo kParams[kNumParams] = {
    {"Domain", CLAP_PARAM_IS_STEPPED | CLAP_PARAM_IS_AUTOMATABLE, 0, 0, 0},
    {"Temperature", CLAP_PARAM_IS_AUTOMATABLE, 0, 2, 1},
    {"Dry/wet", CLAP_PARAM_IS_AUTOMATABLE, 0, 1, 1},
    {"Output level", CLAP_PARAM_IS_AUTOMATABLE, -60, 12, 0},
    {"Model file", CLAP_PARAM_IS_STEPPED, 0, 0, 0},
    {"Dropouts", CLAP_PARAM_IS_STEPPED | CLAP_PARAM_IS_READONLY, 0, 1e9, 0},
};

// In every language of the system alike.
std::string Text(double value, int decimals) {
  char text[400];
  const auto end =
      std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, decimals);
  return {text, end.ptr};
}

bool Number(std::string_view text, double& value) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  return end.ec == std::errc() && std::isfinite(value);
}

// The folder of the plug-in, as the host has named it.
std::string& Folder() {
  static std::string folder;
  return folder;
}

// Model files: what UMT_JAX_MODEL names, then those beside the plug-in, the default first.
std::vector<std::string> Models() {
  std::vector<std::string> models;
  std::error_code error;  // A folder that cannot be read has none.
  for (fs::directory_iterator entry(Folder(), error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") models.push_back(entry->path().string());
  }
  std::sort(models.begin(), models.end());
  const std::string initial = (fs::path(Folder()) / kDefaultModel).string();
  const auto found = std::find(models.begin(), models.end(), initial);
  if (found != models.end()) models.erase(found);
  models.insert(models.begin(), initial);
  if (const char* chosen = std::getenv("UMT_JAX_MODEL")) models.insert(models.begin(), chosen);
  return models;
}

struct Plugin {
  clap_plugin_t clap;
  const clap_host_t* host;
  const clap_host_params_t* host_params = nullptr;
  const clap_host_latency_t* host_latency = nullptr;
  std::vector<std::string> models;
  std::shared_ptr<umt::Player> player;  // What `models` names, once it is loaded.
  std::unique_ptr<umt::Engine> engine;  // While the plug-in is active.
  uint32_t latency = 0;
  bool has_new_ranges = false;  // Which the host may learn only while the plug-in is not active.
  std::atomic<double> values[kNumKept + 1];
  std::atomic<bool> is_rendering{false};
  int64_t told_dropouts = 0;

  Plugin(const clap_plugin_t& clap, const clap_host_t* host)
      : clap(clap), host(host), models(Models()) {
    this->clap.plugin_data = this;
    for (int i = 0; i <= kNumKept; ++i) values[i] = kParams[i].initial;
  }

  double Most(int param) const {
    // At least 1: hosts divide by the range.
    if (param == kModel) return std::max(1., (double)models.size() - 1);
    if (param != kDomain) return kParams[param].most;
    return std::max(1, player && player->model ? umt_model_num_domains(player->model) - 1 : 1);
  }

  // Of the main thread, all that follow but `Take`.

  // Loads the model that is wanted; it is played when the plug-in is next activated.
  void LoadModel() {
    const size_t wanted = (size_t)values[kModel].load();
    if (wanted >= models.size()) {
      std::fprintf(stderr, "umt_jax: there is no model %zu, but %zu of them, from 0.\n", wanted,
                   models.size());
      return;
    }
    if (player && player->path == models[wanted]) return;
    has_new_ranges |= player != nullptr;
    player = std::make_shared<umt::Player>(models[wanted], umt::Engine::kMostBytes);
    if (!player->error.empty()) std::fprintf(stderr, "umt_jax: %s\n", player->error.c_str());
    if (engine) {
      host->request_restart(host);
    } else {
      TellRanges();
    }
  }

  void TellRanges() {
    if (has_new_ranges && host_params) host_params->rescan(host, CLAP_PARAM_RESCAN_ALL);
    has_new_ranges = false;
  }

  // Takes a value of a parameter; any thread, one at a time.
  void Take(uint32_t param, double value) {
    if (param > kNumKept || !std::isfinite(value)) return;
    const ParamInfo& info = kParams[param];
    value = std::clamp(value, info.least, param == kDomain ? 1e6 : Most((int)param));
    if (info.flags & CLAP_PARAM_IS_STEPPED) value = std::floor(value);
    if (values[param].exchange(value) != value && param == kModel) host->request_callback(host);
  }

  void Take(const clap_event_header_t& event) {
    if (event.space_id != CLAP_CORE_EVENT_SPACE_ID || event.type != CLAP_EVENT_PARAM_VALUE) return;
    const auto& change = (const clap_event_param_value_t&)event;
    Take(change.param_id, change.value);
  }

  void Take(const clap_input_events_t* events) {
    const uint32_t count = events ? events->size(events) : 0;
    for (uint32_t i = 0; i < count; ++i) {
      if (const clap_event_header_t* event = events->get(events, i)) Take(*event);
    }
  }
};

Plugin& Of(const clap_plugin_t* clap) { return *(Plugin*)clap->plugin_data; }

bool Init(const clap_plugin_t* clap) {
  Plugin& plugin = Of(clap);
  const clap_host_t* host = plugin.host;
  plugin.host_params = (const clap_host_params_t*)host->get_extension(host, CLAP_EXT_PARAMS);
  plugin.host_latency = (const clap_host_latency_t*)host->get_extension(host, CLAP_EXT_LATENCY);
  plugin.LoadModel();
  return true;
}

void Destroy(const clap_plugin_t* clap) { delete &Of(clap); }

bool Activate(const clap_plugin_t* clap, double rate_hz, uint32_t, uint32_t most_block) {
  Plugin& plugin = Of(clap);
  if (!(rate_hz >= 1)) {
    std::fprintf(stderr, "umt_jax: the host names no sample rate, but %g Hz.\n", rate_hz);
    return false;
  }
  plugin.engine.reset();  // A player has one engine at a time.
  plugin.engine = std::make_unique<umt::Engine>(plugin.player, rate_hz,
                                                (int)std::clamp(most_block, 1u, 1u << 20));
  const auto latency = (uint32_t)plugin.engine->latency();
  const bool has_changed = latency != plugin.latency;
  plugin.latency = latency;
  if (has_changed && plugin.host_latency) plugin.host_latency->changed(plugin.host);
  return true;
}

void Deactivate(const clap_plugin_t* clap) {
  Of(clap).engine.reset();
  Of(clap).TellRanges();
}

bool StartProcessing(const clap_plugin_t* clap) { return Of(clap).engine != nullptr; }

void StopProcessing(const clap_plugin_t*) {}

void Reset(const clap_plugin_t* clap) {
  if (Of(clap).engine) Of(clap).engine->Reset();
}

float* Samples(const clap_audio_buffer_t* ports, uint32_t count) {
  return ports && count && ports->channel_count && ports->data32 ? ports->data32[0] : nullptr;
}

void TellDropouts(Plugin& plugin, const clap_output_events_t* events) {
  const int64_t dropouts = plugin.engine->num_dropouts();
  if (dropouts == plugin.told_dropouts || !events) return;
  clap_event_param_value_t event = {};
  event.header = {sizeof event, 0, CLAP_CORE_EVENT_SPACE_ID, CLAP_EVENT_PARAM_VALUE,
                  CLAP_EVENT_DONT_RECORD};
  event.param_id = kDropouts;
  event.note_id = event.port_index = event.channel = event.key = -1;
  event.value = (double)dropouts;
  if (events->try_push(events, &event.header)) plugin.told_dropouts = dropouts;
}

clap_process_status Process(const clap_plugin_t* clap, const clap_process_t* process) {
  Plugin& plugin = Of(clap);
  const float* in = Samples(process->audio_inputs, process->audio_inputs_count);
  float* out = Samples(process->audio_outputs, process->audio_outputs_count);
  if (!plugin.engine || !in || !out) {
    plugin.Take(process->in_events);
    return CLAP_PROCESS_ERROR;
  }
  const clap_input_events_t* events = process->in_events;
  const uint32_t num_events = events ? events->size(events) : 0;
  // From one event to the next.
  for (uint32_t done = 0, i = 0; i <= num_events; ++i) {
    const clap_event_header_t* event = i < num_events ? events->get(events, i) : nullptr;
    if (i < num_events && !event) continue;
    const uint32_t frames = process->frames_count;
    const uint32_t until = event ? std::min(event->time, frames) : frames;
    if (until > done) {
      const umt::Controls controls = {plugin.values[kDomain], plugin.values[kTemperature],
                                      plugin.values[kWet], plugin.values[kLevel]};
      plugin.engine->Process(in + done, out + done, until - done, controls, plugin.is_rendering);
      done = until;
    }
    if (event) plugin.Take(*event);
  }
  TellDropouts(plugin, process->out_events);
  return CLAP_PROCESS_CONTINUE;
}

void OnMainThread(const clap_plugin_t* clap) { Of(clap).LoadModel(); }

// Ports.

uint32_t NumPorts(const clap_plugin_t*, bool) { return 1; }

bool PortInfo(const clap_plugin_t*, uint32_t index, bool is_input, clap_audio_port_info_t* info) {
  if (index > 0) return false;
  *info = {};
  info->id = 0;
  std::snprintf(info->name, sizeof info->name, "%s", is_input ? "In" : "Out");
  info->flags = CLAP_AUDIO_PORT_IS_MAIN;
  info->channel_count = 1;
  info->port_type = CLAP_PORT_MONO;
  info->in_place_pair = 0;  // Its counterpart.
  return true;
}

uint32_t Latency(const clap_plugin_t* clap) { return Of(clap).latency; }

// Parameters.

uint32_t NumParams(const clap_plugin_t*) { return kNumParams; }

bool GetInfo(const clap_plugin_t* clap, uint32_t index, clap_param_info_t* info) {
  if (index >= kNumParams) return false;
  *info = {};
  info->id = index;
  info->flags = kParams[index].flags;
  std::snprintf(info->name, sizeof info->name, "%s", kParams[index].name);
  info->min_value = kParams[index].least;
  info->max_value = Of(clap).Most((int)index);
  info->default_value = kParams[index].initial;
  return true;
}

bool GetValue(const clap_plugin_t* clap, clap_id param, double* value) {
  if (param >= kNumParams) return false;
  const Plugin& plugin = Of(clap);
  if (param == kDropouts) {
    *value = plugin.engine ? (double)plugin.engine->num_dropouts() : 0;
  } else {
    *value = std::min(plugin.values[param].load(), plugin.Most((int)param));
  }
  return true;
}

// What a value of a parameter that has names is called; "" for none.
std::string Name(const Plugin& plugin, clap_id param, double value) {
  if (!(value >= 0 && value < 1e6)) return "";
  if (param == kModel && (size_t)value < plugin.models.size()) {
    return fs::path(plugin.models[(size_t)value]).filename().string();
  }
  if (param == kDomain && plugin.player && plugin.player->model) {
    const char* name = umt_model_domain(plugin.player->model, (int)value);
    return name ? name : "";
  }
  return "";
}

bool ValueToText(const clap_plugin_t* clap, clap_id param, double value, char* text,
                 uint32_t size) {
  if (param >= kNumParams || size == 0 || !std::isfinite(value)) return false;
  std::string name = Name(Of(clap), param, value);
  if (name.empty()) {
    name = param == kTemperature ? Text(value, 2)
           : param == kWet       ? Text(100 * value, 1) + " %"
           : param == kLevel     ? Text(value, 2) + " dB"
                                 : Text(std::floor(value), 0);
  }
  std::snprintf(text, size, "%s", name.c_str());
  return true;
}

bool TextToValue(const clap_plugin_t* clap, clap_id param, const char* text, double* value) {
  if (param >= kNumParams) return false;
  if (param == kDomain || param == kModel) {
    for (double i = 0; i <= Of(clap).Most((int)param); ++i) {
      if (Name(Of(clap), param, i) == text) {
        *value = i;
        return true;
      }
    }
  }
  if (!Number(text, *value)) return false;
  if (param == kWet) *value /= 100;
  return true;
}

void Flush(const clap_plugin_t* clap, const clap_input_events_t* in, const clap_output_events_t*) {
  Of(clap).Take(in);
}

// State: a line for each parameter, then the path of the model; the default one has none.

bool Save(const clap_plugin_t* clap, const clap_ostream_t* stream) {
  const Plugin& plugin = Of(clap);
  std::string text = kStateBegins;
  for (int i = 0; i < kNumKept; ++i) {
    char number[64];
    const auto end = std::to_chars(number, number + sizeof number, plugin.values[i].load());
    text += std::string(kParams[i].name) + "=" + std::string(number, end.ptr) + "\n";
  }
  const size_t chosen = std::min((size_t)plugin.values[kModel].load(), plugin.models.size() - 1);
  const std::string& path = plugin.models[chosen];
  const bool is_default = path == (fs::path(Folder()) / kDefaultModel).string();
  text += std::string(kParams[kModel].name) + "=" + (is_default ? "" : path);
  for (size_t done = 0; done < text.size();) {
    const int64_t written = stream->write(stream, text.data() + done, text.size() - done);
    if (written <= 0) return false;
    done += (size_t)written;
  }
  return true;
}

// Reads "name=value"; returns false where there is no such line.
bool TakeLine(std::string_view& text, const char* name, char end, std::string_view& value) {
  const std::string begins = std::string(name) + "=";
  if (text.substr(0, begins.size()) != begins) return false;
  text.remove_prefix(begins.size());
  const size_t length = end ? text.find(end) : text.size();
  if (length == std::string_view::npos) return false;
  value = text.substr(0, length);
  text.remove_prefix(end ? length + 1 : length);
  return true;
}

bool Parse(std::string_view text, double (&values)[kNumKept], std::string& path) {
  const std::string_view begins = kStateBegins;
  if (text.substr(0, begins.size()) != begins) return false;
  text.remove_prefix(begins.size());
  std::string_view value;
  for (int i = 0; i < kNumKept; ++i) {
    if (!TakeLine(text, kParams[i].name, '\n', value) || !Number(value, values[i])) return false;
  }
  if (!TakeLine(text, kParams[kModel].name, 0, value)) return false;
  path = std::string(value);
  return true;
}

bool Load(const clap_plugin_t* clap, const clap_istream_t* stream) {
  Plugin& plugin = Of(clap);
  std::string text, path;
  char block[4096];
  int64_t count;
  while ((count = stream->read(stream, block, sizeof block)) > 0 && text.size() <= kMostState) {
    text.append(block, (size_t)count);
  }
  double values[kNumKept];
  if (count < 0 || text.size() > kMostState || !Parse(text, values, path)) {
    std::fprintf(stderr, "umt_jax: The host gives a state that is not this plug-in's.\n");
    return false;
  }
  if (path.empty()) path = (fs::path(Folder()) / kDefaultModel).string();
  auto found = std::find(plugin.models.begin(), plugin.models.end(), path);
  if (found == plugin.models.end()) {  // From elsewhere, or no longer there: tried as it is.
    plugin.models.push_back(path);
    plugin.has_new_ranges = true;
    found = plugin.models.end() - 1;
  }
  for (int i = 0; i < kNumKept; ++i) plugin.Take((uint32_t)i, values[i]);
  plugin.values[kModel] = (double)(found - plugin.models.begin());
  plugin.LoadModel();
  if (plugin.host_params) plugin.host_params->rescan(plugin.host, CLAP_PARAM_RESCAN_VALUES);
  return true;
}

bool HasHardRealtimeRequirement(const clap_plugin_t*) { return false; }

bool SetRendering(const clap_plugin_t* clap, int32_t mode) {
  Of(clap).is_rendering = mode == kOffline;
  return true;
}

const void* GetExtension(const clap_plugin_t*, const char* id) {
  static const clap_plugin_audio_ports_t ports = {NumPorts, PortInfo};
  static const clap_plugin_latency_t latency = {Latency};
  static const clap_plugin_params_t params = {NumParams,   GetInfo,     GetValue,
                                              ValueToText, TextToValue, Flush};
  static const clap_plugin_state_t state = {Save, Load};
  static const Render render = {HasHardRealtimeRequirement, SetRendering};
  if (!std::strcmp(id, CLAP_EXT_AUDIO_PORTS)) return &ports;
  if (!std::strcmp(id, CLAP_EXT_LATENCY)) return &latency;
  if (!std::strcmp(id, CLAP_EXT_PARAMS)) return &params;
  if (!std::strcmp(id, CLAP_EXT_STATE)) return &state;
  if (!std::strcmp(id, kRender)) return &render;
  return nullptr;
}

// The factory.

const char* kFeatures[] = {CLAP_PLUGIN_FEATURE_AUDIO_EFFECT, CLAP_PLUGIN_FEATURE_MONO, nullptr};
const clap_plugin_descriptor_t kDescriptor = {CLAP_VERSION,
                                              "umt_jax.translator",
                                              "umt_jax",
                                              "umt_jax",
                                              "",
                                              "",
                                              "",
                                              UMT_JAX_VERSION,
                                              "Plays a recording back as another instrument.",
                                              kFeatures};

uint32_t Count(const clap_plugin_factory_t*) { return 1; }

const clap_plugin_descriptor_t* Describe(const clap_plugin_factory_t*, uint32_t index) {
  return index == 0 ? &kDescriptor : nullptr;
}

const clap_plugin_t* Create(const clap_plugin_factory_t*, const clap_host_t* host, const char* id) {
  if (!host || !clap_version_is_compatible(host->clap_version)) return nullptr;
  if (!id || std::strcmp(id, kDescriptor.id)) return nullptr;
  const clap_plugin_t clap = {&kDescriptor, nullptr,         Init,           Destroy, Activate,
                              Deactivate,   StartProcessing, StopProcessing, Reset,   Process,
                              GetExtension, OnMainThread};
  return &(new Plugin(clap, host))->clap;
}

bool EntryInit(const char* path) {
  Folder() = fs::path(path ? path : "").parent_path().string();
  return true;
}

void EntryDeinit() {}

const void* GetFactory(const char* id) {
  static const clap_plugin_factory_t factory = {Count, Describe, Create};
  return std::strcmp(id, CLAP_PLUGIN_FACTORY_ID) ? nullptr : &factory;
}

}  // namespace

extern "C" CLAP_EXPORT const clap_plugin_entry_t clap_entry = {CLAP_VERSION, EntryInit, EntryDeinit,
                                                               GetFactory};
