from umqtt import MQTTClient, MQTTException
